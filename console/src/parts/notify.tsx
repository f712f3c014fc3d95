/** Messages to this browser about approval requests (Web Push): the switch for a person who is signed in. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { BASE, get, post, send } from "../api";
import { useMay } from "../session";
import { Problem } from "./basics";

interface Push {
  key: string;
  subscriptions: { subscription_id: string }[];
}

interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL(): string }): { createScriptURL(text: string): string };
}

const SCOPE = `${BASE}/console/`;
const WORKER = `${SCOPE}worker.js`;
const STORED = "ostiary-push";
const isSupported = "serviceWorker" in navigator && "PushManager" in window && "Notification" in window;
const { trustedTypes } = window as { trustedTypes?: TrustedTypes };
/** The only script URL that the policy of the page lets a script set. */
const workerUrl = trustedTypes?.createPolicy("worker", { createScriptURL: () => WORKER }).createScriptURL("") ?? WORKER;

/** Return the id under which the server knows this browser; null if it sends no messages here. */
async function readSubscription(): Promise<string | null> {
  const registration = await navigator.serviceWorker.getRegistration(SCOPE);
  const [subscription, { subscriptions }] = await Promise.all([registration?.pushManager.getSubscription(), get<Push>("/push")]);
  const id = localStorage.getItem(STORED);
  return subscription && subscriptions.some((one) => one.subscription_id === id) ? id : null;
}

async function subscribe(): Promise<void> {
  if ((await Notification.requestPermission()) !== "granted") {
    throw new Error("the browser does not permit notifications of this site: change that in its settings");
  }
  const registration = await navigator.serviceWorker.register(workerUrl, { scope: SCOPE });
  await navigator.serviceWorker.ready;
  await (await registration.pushManager.getSubscription())?.unsubscribe();
  const { key } = await get<Push>("/push");
  const made = await registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key }).catch((error: unknown) => {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(
      `the browser cannot register with the push service of its vendor (${reason}): leave a private window, permit notifications of ` +
        "this site, and check that the browser reaches the service",
    );
  });
  const { endpoint, keys } = made.toJSON();
  localStorage.setItem(STORED, (await post<{ subscription_id: string }>("/push", { endpoint, keys })).subscription_id);
}

async function unsubscribe(id: string): Promise<void> {
  await send("DELETE", `/push/${encodeURIComponent(id)}`);
  localStorage.removeItem(STORED);
  const registration = await navigator.serviceWorker.getRegistration(SCOPE);
  await (await registration?.pushManager.getSubscription())?.unsubscribe();
}

export function NotifySwitch() {
  const may = useMay();
  const client = useQueryClient();
  const present = useQuery({ queryKey: ["push"], queryFn: readSubscription, enabled: isSupported && may("POST /push") });
  const change = useMutation({
    mutationFn: () => (present.data ? unsubscribe(present.data) : subscribe()),
    onSettled: () => client.invalidateQueries({ queryKey: ["push"] }),
  });
  if (present.isPending) return null;
  return (
    <>
      {(present.isError || change.isError) && <Problem error={present.error ?? change.error} />}
      {present.isSuccess && (
        <button disabled={change.isPending} onClick={() => change.mutate()}>
          {present.data ? "Stop messages to this browser" : "Tell this browser about requests"}
        </button>
      )}
    </>
  );
}
