/** The changes of the state of agents, and which of them a state permits. */

export type Verb = "suspend" | "resume" | "quarantine" | "release" | "decommission";

export const ACTS: Record<Verb, { title: string; what: string; isDangerous: boolean }> = {
  suspend: { title: "Suspend", what: "is denied at every guard at once, and its tokens end. You can resume it later.", isDangerous: true },
  quarantine: { title: "Quarantine", what: "is denied at every guard at once. A person must review and release it.", isDangerous: true },
  release: { title: "Release", what: "may obtain tokens again. Release it after you know why it was quarantined.", isDangerous: false },
  resume: { title: "Resume", what: "may obtain tokens again. What had ended stays ended.", isDangerous: false },
  decommission: { title: "Decommission", what: "ends for good, with everything that it holds. Its name cannot be used again.", isDangerous: true },
};

export const NEXT: Record<string, Verb[]> = {
  active: ["suspend", "quarantine", "decommission"],
  pending: ["suspend", "decommission"],
  suspended: ["resume", "quarantine", "decommission"],
  quarantined: ["release", "decommission"],
};
