// Passkeys: runs the ceremony of a form with `data-passkey`, and sends the response of the authenticator with the form.
"use strict";

const toBytes = (text) => {
  const base64 = text.replace(/-/g, "+").replace(/_/g, "/");
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
};

const toText = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

const withBytes = (list) => (list || []).map((one) => ({ ...one, id: toBytes(one.id) }));

const create = async (options) => {
  options.challenge = toBytes(options.challenge);
  options.user.id = toBytes(options.user.id);
  options.excludeCredentials = withBytes(options.excludeCredentials);
  const made = await navigator.credentials.create({ publicKey: options });
  return {
    id: made.id, rawId: toText(made.rawId), type: made.type,
    response: {
      clientDataJSON: toText(made.response.clientDataJSON),
      attestationObject: toText(made.response.attestationObject),
      transports: made.response.getTransports ? made.response.getTransports() : [],
    },
  };
};

const get = async (options) => {
  options.challenge = toBytes(options.challenge);
  options.allowCredentials = withBytes(options.allowCredentials);
  const found = await navigator.credentials.get({ publicKey: options });
  const { clientDataJSON, authenticatorData, signature, userHandle } = found.response;
  return {
    id: found.id, rawId: toText(found.rawId), type: found.type,
    response: {
      clientDataJSON: toText(clientDataJSON), authenticatorData: toText(authenticatorData),
      signature: toText(signature), userHandle: userHandle ? toText(userHandle) : null,
    },
  };
};

const run = async (form) => {
  const alert = form.querySelector("[data-problem]");
  alert.hidden = true;
  try {
    const options = JSON.parse(form.dataset.options);
    const response = await (form.dataset.passkey === "create" ? create : get)(options);
    form.elements.credential.value = JSON.stringify(response);
    form.submit();
  } catch (error) {
    alert.textContent = error.name === "InvalidStateError"
      ? "This device has a passkey for your account already."
      : "The passkey was not used: it was cancelled, timed out, or none fits. Try again, or use another way.";
    alert.hidden = false;
  }
};

for (const form of document.querySelectorAll("form[data-passkey]")) {
  if (window.PublicKeyCredential) {
    for (const part of document.querySelectorAll("[data-needs-passkeys]")) part.hidden = false;
    form.addEventListener("submit", (event) => { event.preventDefault(); run(form); });
  }
}
