/** Overview: what needs a person now, and the state of the agents. */

import { useQuery } from "@tanstack/react-query";
import { get } from "../api";
import { Loading, PageHead, Problem } from "../parts/basics";

interface Activity {
  size: number;
  waiting: number;
  stops: number;
}

export function Overview() {
  const activity = useQuery({ queryKey: ["activity"], queryFn: () => get<Activity>("/activity") });
  return (
    <>
      <PageHead title="Overview" />
      {activity.isPending ? <Loading /> : activity.isError ? <Problem error={activity.error} /> : (
        <dl className="figures">
          <div><dt>Open incidents</dt><dd>{activity.data.waiting}</dd></div>
          <div><dt>Stops in force</dt><dd>{activity.data.stops}</dd></div>
          <div><dt>Entries in the ledger</dt><dd>{activity.data.size.toLocaleString("en")}</dd></div>
        </dl>
      )}
    </>
  );
}
