/** Icons: strokes on a grid of 20. They are decoration; the text beside them names the thing. */

const PATHS = {
  overview: "M3 10h4l2-6 3 12 2-6h3",
  agents: "M6 8h8a2 2 0 0 1 2 2v4a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2v-4a2 2 0 0 1 2-2ZM10 8V4M8 12h.01M12 12h.01",
  approvals: "M4 10.5 8 14.5 16 6",
  incidents: "M10 3 18 16.5H2ZM10 8v4M10 14h.01",
  policies: "M5 3h7l3 3v11H5ZM8 9h4M8 12h4",
  connections: "M7 13 13 7M8 5l1-1a3.5 3.5 0 0 1 5 5l-1 1M12 15l-1 1a3.5 3.5 0 0 1-5-5l1-1",
  secrets: "M6.5 13.5a3.5 3.5 0 1 1 3.300-4.700L17 8.800v3h-2.500v-1.500h-4.700a3.500 3.500 0 0 1-3.300 3.200ZM6.500 10h.01",
  certificates: "M4 4h12v9H4ZM7 7h6M7 10h3M12 11v6l1.500-1 1.500 1v-6",
  accounts: "M3.500 5h13v10h-13ZM6.500 12.500c.300-1.500 1.200-2 2-2s1.700.500 2 2M8.500 9h.01M12.500 8.500h2M12.500 11.500h2",
  map: "M5 5h.01M15 7h.01M9 15h.01M5 5l10 2-6 8Z",
  people: "M7 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM2 17c0-3 2-5 5-5s5 2 5 5M13 4a3 3 0 0 1 0 5.5M14.5 12.5c2 .6 3.5 2.300 3.500 4.500",
  tasks: "M4 5h12M4 10h12M4 15h7",
  ledger: "M10 3v5M10 8 5 12M10 8l5 4M5 12v4M15 12v4",
  start: "M5 17V3l10 4-10 4",
  search: "M9 3.5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 0 1 0-11ZM13 13l4 4",
  menu: "M3 6h14M3 10h14M3 14h14",
  stop: "M7 3h6l4 4v6l-4 4H7l-4-4V7Z",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
