// Generated from the OpenAPI document of the server: make docs.

/** An access key without its secret key. Times are seconds since the epoch. */
export type AccessKeyBody = {
  access_key_id: string;
  created_at: number;
  expires_at: number;
  network: string;
};

/**
 * A request for an access key: the networks from which the key is accepted, with spaces between, and its lifetime in
 * seconds.
 */
export type AccessKeyRequest = {
  network: string;
  ttl?: number;
};

/** The access keys of an agent. */
export type AccessKeysBody = {
  keys: AccessKeyBody[];
};

export type AccessRevocation = {
  kind: RevokedKind;
  id: string;
};

/** An account (RFC 8555 section 7.1.2). */
export type AccountBody = {
  contact: string[];
  orders: string;
  status: string;
};

/**
 * A request to end a connected account. `forget`: delete the account even if the provider has not revoked its refresh
 * token.
 */
export type AccountEnd = {
  forget?: boolean;
};

/** An account, by its subject at the provider, and the person to whom it is linked. */
export type AccountLink = {
  person: string;
  sub: string;
};

/** An account provider. `redirect_uri`: the URI to register at the provider. `added_at`: seconds since the epoch. */
export type AccountProviderBody = {
  added_at: number;
  authentication: string;
  authorization_endpoint: string;
  client_id: string;
  issuer: string;
  label: string;
  name: string;
  preset: string;
  redirect_uri: string;
  revocation_endpoint: string;
  revokes_single_tokens: boolean;
  roles: string[];
  scopes: string[];
  token_endpoint: string;
};

/** Changes of an account provider. A setting that is left out stays. `client_secret` replaces the client secret. */
export type AccountProviderChanges = {
  client_secret?: string;
  scopes?: string[] | null;
  roles?: string[] | null;
};

/** A MAC key without its secret. */
export type AcmeKeyBody = {
  account: string | null;
  created_at: number;
  expires_at: number;
  holder: string;
  kid: string;
  name: string;
  names: string[];
  profile: string;
  revoked_at: number | null;
};

export type ActionSearch = {
  subject: Thing;
  resource: Thing;
  context?: Record<string, unknown> | null;
  page?: PageAsked;
  options?: SearchOptions;
};

export type Activation = {
  loses?: string[];
};

/** The changes that the activation of a stored set would make. */
export type ActivationPlan = {
  active: boolean;
  hash: string;
  notes: string[];
  plan: Plan;
};

/**
 * The agents with the highest risk scores, and the numbers of open incidents (`waiting`), of stops, and of entries of
 * the ledger (`size`).
 */
export type ActivityBody = {
  doubted: RiskBody[];
  size: number;
  stops: number;
  waiting: number;
};

/** The summary of an agent, which lists show. */
export type AgentBody = {
  agent_id: string;
  client_id: string;
  created_at: number | null;
  deputy: string | null;
  epoch: number;
  expires_at: number | null;
  kind: string;
  last_used_at?: number | null;
  max_depth: number;
  model: string;
  name: string;
  owner: string | null;
  owner_id: string;
  provider: string;
  purpose: string;
  risk_tier: string;
  scopes: string[];
  segment: string;
  speaks: boolean;
  spiffe_id: string;
  state: string;
};

/** Members of an agent to change. `expires_in: null` removes the end. `deputy` can only be sent with `owner`. */
export type AgentChange = {
  scopes?: string[];
  undeclared?: boolean;
  max_depth?: number;
  speaks?: boolean;
  expires_in?: number | null;
  owner?: string;
  segment?: string;
  deputy?: string | null;
};

/** The redirect URIs of an agent, and the URL at which the agent receives logout tokens. */
export type AgentClient = {
  redirect_uris: string[];
  post_logout_redirect_uris?: string[];
  backchannel_logout_uri?: string;
};

/**
 * The numbers of agents by state, kind, risk tier and segment. At most 200 segments are listed, those with the most
 * agents first.
 */
export type AgentCountsBody = {
  kind: Record<string, number>;
  risk_tier: Record<string, number>;
  segment: Record<string, number>;
  state: Record<string, number>;
  total: number;
};

/** An agent with its newest keys. If `more_keys` is true, the path `/keys` of the agent lists the older keys. */
export type AgentDetail = {
  agent_id: string;
  client_id: string;
  created_at: number | null;
  data_classes: string[];
  deputy: string | null;
  epoch: number;
  expires_at: number | null;
  keys: AgentKeyBody[];
  kind: string;
  last_used_at?: number | null;
  max_depth: number;
  model: string;
  more_keys: boolean;
  name: string;
  owner: string | null;
  owner_id: string;
  provider: string;
  purpose: string;
  risk_tier: string;
  scopes: string[];
  segment: string;
  speaks: boolean;
  spiffe_id: string;
  state: string;
  undo: string;
};

/** A public key of an agent. */
export type AgentKeyBody = {
  added_at: number | null;
  agent_id: string;
  alg: string;
  jwk: Record<string, unknown>;
  kid: string;
  not_after: number | null;
  revoked_at: number | null;
};

export type AgentKeyRotation = {
  jwk: Record<string, unknown>;
  overlap_s?: number;
};

export type AgentState = "active" | "decommissioned" | "pending" | "quarantined" | "suspended";

/** An agent in the table. Times are in seconds since the epoch; `risk` is 0 to 100 points. */
export type AgentTableRow = {
  agent_id: string;
  created_at: number | null;
  expires_at: number | null;
  kind: string;
  last_used_at: number | null;
  model: string;
  name: string;
  owner: string | null;
  owner_id: string;
  provider: string;
  purpose: string;
  risk: number;
  risk_tier: string;
  segment: string;
  state: string;
};

/**
 * The numbers of agents by state, and the numbers of agents with a risk score of at least 60 points (`high`) and at
 * least 20 points (`raised`).
 */
export type AgentsBody = {
  high: number;
  raised: number;
  state: Record<string, number>;
  total: number;
};

export type Allowance = {
  limits: unknown[];
};

/** The daily budgets of an agent, with the units that are left today. */
export type AllowanceBody = {
  budgets: Balance[];
};

/** A limit on the sum of one argument over all calls of these tools. */
export type Amount = {
  kind: "amount";
  limit: string;
  tools: string[];
  argument: string;
};

/** A trust anchor. `thumbprint` is its `x5t#S256`; times are in seconds since the epoch. */
export type AnchorRow = {
  added_at: number;
  is_own: boolean;
  name: string;
  not_after: number;
  subject: string;
  thumbprint: string;
};

/**
 * The result of the test of a trust anchor. `failed`: why the anchor cannot sign certificates of clients now.
 * `clients`: the number of agents that authenticate by a subject in a certificate of any trust anchor.
 */
export type AnchorTest = {
  certificate: TriedCertificate | null;
  clients: number;
  failed: string | null;
  name: string;
  not_after: number;
};

/**
 * A client certificate in PEM with its chain, to try against a trust anchor, and the agent that would authenticate
 * with it. Both may be empty.
 */
export type AnchorTrial = {
  certificate?: string;
  agent?: string;
};

/** All trust anchors. */
export type AnchorsBody = {
  anchors: AnchorRow[];
};

/**
 * An incident after a person's decision. `seq` is the number of the change in the guards' feed, `committed_at` the
 * time of its commit in microseconds.
 */
export type AnsweredIncident = {
  agent: string;
  agent_id: string;
  agent_state: string | null;
  closed_at: number | null;
  committed_at: number;
  incident_id: string;
  opened_at: number;
  owner: string | null;
  person: string | null;
  risk: number;
  risk_now: number;
  says: string;
  seq: number;
  state: string;
  why: string | null;
};

/**
 * The result of each answer, the denials before the approvals, each in the order of the request: the approval request
 * in its new state, or the refusal of the answer.
 */
export type AnswersBody = {
  answers: Record<string, unknown>[];
};

/**
 * An acknowledgement: all changes up to `seq` have been in force at the guard for `ago` microseconds. `late` is the
 * age of the guard's oldest unreported record in microseconds; `filled` is the fill level of its spool in per cent.
 */
export type Applied = {
  stream: string;
  seq: number;
  ago: number;
  late?: number;
  filled?: number;
};

/** An answer to an approval request. A denial uses only the `reason`. */
export type ApprovalAnswer = {
  reason: string;
  covers?: "call" | "task" | null;
  strike?: number[];
  uses?: number | null;
  at_most?: Record<string, string>;
  value?: string | null;
};

/**
 * Answers to several approval requests with one reason: the ids of the requests to approve, and of those to deny.
 * `covers` applies to each approval, as in an answer to one request.
 */
export type ApprovalAnswers = {
  reason: string;
  approve?: string[];
  deny?: string[];
  covers?: "call" | "task" | null;
};

/** An approval request in brief. Times are in seconds since the epoch. */
export type ApprovalBody = {
  agent: string;
  answered_at: number | null;
  approval_id: string;
  asked_at: number;
  dangerous: boolean;
  ends_at: number;
  kind: string;
  must_state: string;
  needs: "person" | "two";
  reason: string;
  said_yes: number;
  state: string;
  task: string;
  times: number;
  tool: string;
  until: number | null;
};

/**
 * An approval request with all facts that a person needs to answer it. In an answer, the person can lower `uses` and
 * `at_most`, and strike lines of a plan.
 */
export type ApprovalDetail = {
  agent: string;
  answered_at: number | null;
  answers: Record<string, unknown>[];
  approval_id: string;
  arguments: Record<string, unknown>;
  asked_at: number;
  asks: Record<string, unknown>;
  at_most: Record<string, string>;
  before: unknown[];
  covers: string;
  dangerous: boolean;
  digest: string;
  ends_at: number;
  flood: Record<string, number>;
  foreign: Record<string, unknown>;
  hidden: string[];
  kind: string;
  lines: string[];
  may_cover: string[];
  must_state: string;
  needs: "person" | "two";
  origins: Record<string, unknown>;
  outgoing: Record<string, unknown>;
  policy: string;
  reason: string;
  reasons: unknown[];
  said_yes: number;
  state: string;
  task: string;
  times: number;
  tool: string;
  until: number | null;
  uses: number;
  warnings: string[];
  words: string[];
};

/**
 * A guard's request for an approval. `arguments`: the arguments that may be shown; `secrets`: digests of all other
 * arguments, by name.
 */
export type ApprovalRequest = {
  call: string;
  token: string;
  policy: string;
  policies: string[];
  tool: string;
  arguments: Record<string, unknown>;
  secrets?: Record<string, string>;
  origins?: Record<string, string>;
  foreign?: Record<string, string[]>;
  warnings?: string[];
  approval?: string;
};

/** An authority with its certificate in PEM. The certificate is empty while the authority is pending. */
export type AuthorityBody = {
  active_from: number | null;
  authority_id: string;
  certificate: string;
  created_at: number;
  has_key: boolean;
  key_type: string;
  kind: string;
  not_after: number;
  not_before: number;
  parent: string | null;
  permitted: string[];
  reason: string;
  revoked_at: number | null;
  state: string;
  subject: string;
};

/**
 * The revoked intermediate, and the intermediate that replaces it: null if the revoked one was not active, if its root
 * is external, or if the server could not create a new one yet, for example because its HSM does not answer.
 */
export type AuthorityRevocationBody = {
  active_from: number | null;
  authority_id: string;
  certificate: string;
  created_at: number;
  has_key: boolean;
  key_type: string;
  kind: string;
  not_after: number;
  not_before: number;
  parent: string | null;
  permitted: string[];
  reason: string;
  replaced_by: AuthorityBody | null;
  revoked_at: number | null;
  state: string;
  subject: string;
};

/** An authorization (RFC 8555 section 7.1.4). */
export type AuthorizationBody = {
  challenges: ChallengeBody[];
  expires: string;
  identifier: IdentifierBody;
  status: string;
  wildcard?: boolean;
};

export type AwsError = {
  Message: string;
  __type: string;
};

/** A backchannel authentication response (CIBA Core 1.0 section 7.3). */
export type BackchannelBody = {
  auth_req_id: string;
  expires_in: number;
  interval: number;
};

/** A backchannel authentication request (CIBA Core 1.0 section 7.1). */
export type BackchannelForm = {
  acr_values?: string;
  authorization_details?: string;
  binding_message?: string;
  client_assertion?: string;
  client_assertion_type?: string;
  client_id?: string;
  login_hint: string;
  requested_expiry?: string;
  resource?: string;
  scope: string;
};

/** A back end without its credentials. Times in seconds. */
export type BackendBody = {
  address: string;
  cache_s: number;
  kind: string;
  mount: string;
  name: string;
  region: string;
  updated_at: number;
};

/** The kind of a back end (an existing store of secrets), such as `vault-kv2`. */
export type BackendKind = "aws" | "environment" | "files" | "kubernetes" | "vault-kv1" | "vault-kv2";

/** The back ends. */
export type BackendsBody = {
  backends: BackendBody[];
};

/**
 * The state of a budget for people, in the units of its limit. Units that are neither left nor spent were drawn by
 * guards or by tasks under this one.
 */
export type Balance = {
  id: string;
  limit: Calls | Amount | Volume;
  left: string;
  spent: string;
  daily?: boolean;
};

export type Batch = {
  subject?: Thing | null;
  action?: Verb | null;
  resource?: Thing | null;
  context?: Record<string, unknown> | null;
  evaluations?: (EvaluationItem | null)[] | null;
  options?: BatchOptions | null;
};

/** The result of one request of a batch: a certificate or a refusal. */
export type BatchAnswer = {
  certificate?: CertificateDetail;
  error?: ErrorBody;
};

/** The results of a batch, in the order of its requests. */
export type BatchBody = {
  answers: BatchAnswer[];
};

export type BatchOptions = {
  evaluations_semantic?: "deny_on_first_deny" | "execute_all" | "permit_on_first_permit";
};

/** The responses to the evaluations of a batch, in the order of the request. */
export type BatchResponse = {
  evaluations: EvaluationResponse[];
};

/** The bearer exemptions of an agent. */
export type BearerBody = {
  bearer: BearerExemption[];
};

/** Classes of registration whose clients may use bearer tokens at a resource. */
export type BearerClassesBody = {
  bearer: ("document" | "dynamic")[];
};

/** A resource at which an agent may use tokens that are bound to no key. */
export type BearerExemption = {
  resource: string;
  since: number;
  uri: string;
};

/**
 * The behaviour of one agent. `days`: the number of the agent's acts in each of the last 14 periods of 24 hours, the
 * oldest first; the last period ends now. Each number stops at 2,000.
 */
export type BehaviourBody = {
  days: number[];
  resources: ResourceUse[];
  scopes: ScopeUse[];
};

/** The keys of a browser in base64url: a public key (a point of P-256), and an authentication secret. */
export type BrowserKeys = {
  p256dh: string;
  auth: string;
};

/** A trust bundle in the SPIFFE bundle format. */
export type BundleBody = {
  keys: Record<string, unknown>[];
  spiffe_refresh_hint: number;
  spiffe_sequence: number;
};

/**
 * The facts that the policies evaluated, except those in the record itself. Record and facts are sufficient to replay
 * the decision with other policies. `context`: the context in Cedar's JSON, without arguments and time; `arguments`:
 * the arguments in the form of `access.recorded`.
 */
export type CallFacts = {
  owner: string;
  segment: string;
  resource_segment: string;
  catalogue: string;
  model?: string | null;
  risk_tier?: string | null;
  context: Record<string, unknown> | unknown;
  beside?: Record<string, unknown>;
  arguments?: Record<string, unknown> | null;
  hidden?: string[];
  approved?: string[];
};

/**
 * The record of a decided call. `token`: `jti` of the token; `outcome`: the enforced result; `verdict`: the result of
 * the rules, which differs from `outcome` only in mode `watch`.
 */
export type CallRecord = {
  kind: "call";
  at: number;
  token: string;
  agent: string;
  task?: string;
  actors?: string[];
  tool: string;
  outcome: "allow" | "deny";
  verdict: "allow" | "deny";
  digest?: string;
  arguments?: Record<string, unknown> | null;
  reasons?: RecordedReason[];
  data_classes?: string[];
  policy?: string;
  policies?: string[];
  watched?: string[];
  spent?: Record<string, number>;
  errors?: [string, string][];
  facts?: CallFacts | null;
  elsewhere?: RemoteRecord | null;
  approval?: string;
  network?: string;
  noticed?: Noticed[];
  proof?: string;
  sources?: Source[];
};

/** A limit on the number of calls of these tools; of all tools if `tools` is empty. */
export type Calls = {
  kind: "calls";
  limit: number;
  tools?: string[];
};

/**
 * A request to set or remove the canary mark of a secret. `is_canary`: whether agents that read the secret are
 * quarantined.
 */
export type CanaryMark = {
  path: string;
  is_canary?: boolean;
};

/** Up to 100 requests for certificates. */
export type CertificateBatch = {
  requests: NewCertificate[];
};

/**
 * A certificate, as lists show it. `holder` is empty for the server itself. `state`: `live`, `on_hold` (a stop of the
 * kill switch applies to the holder), `revoked` or `expired`.
 */
export type CertificateBody = {
  authority: string;
  holder: string;
  holder_id: string;
  issued_at: number;
  key_type: string;
  names: string[];
  not_after: number;
  not_before: number;
  profile: string;
  reason: string;
  revoked_at: number | null;
  serial: string;
  state: string;
  task: string | null;
  thumbprint: string;
};

/** A certificate with its chain in PEM. `bundle`: the roots that clients must trust, in PEM. */
export type CertificateDetail = {
  authority: string;
  bundle?: string;
  certificate: string;
  chain: string;
  holder: string;
  holder_id: string;
  issued_at: number;
  key_type: string;
  names: string[];
  not_after: number;
  not_before: number;
  profile: string;
  reason: string;
  revoked_at: number | null;
  serial: string;
  state: string;
  task: string | null;
  thumbprint: string;
};

/** A registered certificate of an agent. */
export type CertificateRow = {
  not_after: number;
  subject: string;
  thumbprint: string;
};

/** A challenge (RFC 8555 section 7.1.5). */
export type ChallengeBody = {
  error?: ProblemBody;
  status: string;
  token: string;
  type: string;
  url: string;
  validated?: string;
};

export type Changed = {
  id: string;
  before: Item;
  after: Item;
};

/**
 * The number of entries of the ledger, and the time of the newest entry in seconds since the epoch; null for an empty
 * ledger.
 */
export type CheckpointBody = {
  at: number | null;
  size: number;
};

/** An OAuth client. `digest` changes if its name, its redirect URIs or its keys change. */
export type ClientBody = {
  backchannel_logout_uri: string;
  changed_at: number;
  client_id: string;
  created_at: number;
  digest: string;
  id: string;
  kind: string;
  name: string;
  post_logout_redirect_uris: string[];
  redirect_uris: string[];
  state: string;
  token_endpoint_auth_method: string;
  used_at: number | null;
};

/** A client secret without its value. */
export type ClientSecret = {
  created_at: number;
  expires_at: number;
  secret_id: string;
};

/** A client secret; it is shown once. */
export type ClientSecretBody = {
  client_id: string;
  client_secret: string;
  expires_at: number;
  secret_id: string;
};

/** The client secrets of an agent or a resource. */
export type ClientSecretsBody = {
  secrets: ClientSecret[];
};

/**
 * State of a client. `pending`: an administrator must approve the client. `active`: the client may act. `stopped`: an
 * administrator stopped the client.
 */
export type ClientState = "active" | "pending" | "stopped";

/**
 * State of the clock. `state`: `jumped` after a jump forward of the wall clock that an operator must confirm, `behind`
 * if the wall clock is behind server time. `time` (server time) and `wall` (wall clock) are in seconds since the
 * epoch. `difference_s`: wall clock minus server time, in seconds. `is_granting`: false in the state `jumped`.
 */
export type ClockBody = {
  difference_s: number;
  is_granting: boolean;
  state: "behind" | "jumped" | "ok";
  time: number;
  wall: number;
};

/**
 * A stream's configuration as the receiver sends it back. Members that the transmitter sets must be unchanged (SSF
 * 8.1.1.3).
 */
export type Configuration = {
  stream_id?: string;
  events_requested?: string[] | null;
  delivery?: Delivery | null;
  description?: string | null;
  iss?: string;
  aud?: string | string[];
  events_supported?: string[];
  events_delivered?: string[];
  min_verification_interval?: number;
};

/**
 * The confirmation of the wall clock. `wall` is the time that the operator confirms, in seconds, as `GET
 * /api/v1/clock` shows it.
 */
export type Confirmation = {
  wall: number;
};

/**
 * A connected account. `attempts`: the number of failed revocations; `error`: the error of the last one. Times are
 * seconds since the epoch. `agents`: names of the agents that have an access token of the account now, at most 20.
 */
export type ConnectedAccountBody = {
  account_id: string;
  agents: string[];
  attempts: number;
  connected_at: number;
  error: string;
  person: string;
  provider: string;
  refreshed_at: number;
  scopes: string[];
  state: string;
};

/**
 * A consent; times in seconds since the epoch. `resource` is a URI, or empty if the consent covers only scopes of
 * OpenID Connect.
 */
export type ConsentBody = {
  agent: string;
  authorization_details: Record<string, unknown>[];
  client_id: string;
  client_name: string;
  consent_id: string;
  ended_at: number | null;
  ended_why: string;
  expires_at: number;
  granted_at: number;
  person: string;
  resource: string;
  scopes: string[];
};

/**
 * Decisions per second over the last minute, and the numbers of decisions in each part of `part_s` seconds of that
 * minute, the oldest first.
 */
export type DecisionsBody = {
  allowed: number[];
  allowed_per_s: number;
  denied: number[];
  denied_per_s: number;
  part_s: number;
};

/**
 * The delivery of a stream: push (SSF section 7.1.1) or poll (7.1.2). `authorization_header` is the value that the
 * receiver expects with a push.
 */
export type Delivery = {
  method: string;
  endpoint_url?: string | null;
  authorization_header?: string | null;
};

/** A refusal of a security event token (RFC 8935 section 2.3). */
export type DeliveryError = {
  description: string;
  err: string;
};

/** The denial for which a person is asked, with the members that the decision of the evaluation contained. */
export type Denied = {
  expires_at: string;
  binding_token?: string | null;
};

export type Deputy = {
  deputy: string | null;
};

/** A destination with the path and the member of its secret. `created_at`: seconds since the epoch. */
export type DestinationBody = {
  created_at: number;
  field: string;
  member: string;
  name: string;
  origin: string;
  place: string;
  private: boolean;
  scopes: string[];
  secret: string;
  template: string;
};

/** The response to a device authorization request (RFC 8628 section 3.2). */
export type DeviceBody = {
  device_code: string;
  expires_in: number;
  interval: number;
  user_code: string;
  verification_uri: string;
  verification_uri_complete: string;
};

/** A device authorization request (RFC 8628 section 3.1). */
export type DeviceForm = {
  acr_values?: string;
  authorization_details?: string;
  client_assertion?: string;
  client_assertion_type?: string;
  client_id?: string;
  client_secret?: string;
  max_age?: string;
  resource?: string;
  scope?: string;
};

/** The result of the removal of an issuer. `stream_ended`: whether the issuer has ended its stream to this server. */
export type DistrustedBody = {
  stream_ended: boolean;
};

/** The results, one for each experiment, in the order of the experiments. */
export type DoctorBody = {
  lines: Line[];
};

export type Draw = {
  spool: string;
  turn: number;
  token: string;
  need: Record<string, number>;
};

export type Drawn = {
  total: Record<string, number>;
  left: Record<string, number>;
};

/** An elevation, in the JSON form of the API. Times are in seconds since the epoch. */
export type ElevationBody = {
  agent: string;
  approval: string | null;
  break_glass: boolean;
  expires_at: number | null;
  granted_at: number;
  people: string[];
  reason: string;
  scopes: string[];
  state: string;
  task_id: string;
};

/**
 * The request of an agent for an elevation: more scopes for some minutes. `break_glass`: emergency access, which two
 * persons must approve.
 */
export type ElevationRequest = {
  scopes: string[];
  reason: string;
  minutes?: number;
  break_glass?: boolean;
};

/** All scopes that an agent may request for a limited time; scopes that are left out are no longer among them. */
export type Eligible = {
  scopes: string[];
  undeclared?: boolean;
};

/** The scopes that an agent may request for a limited time (elevation). */
export type EligibleBody = {
  agent: string;
  scopes: string[];
};

/** A JSON object without members, as the body of an answer. */
export type EmptyBody = Record<string, never>;

export type End = {
  outcome?: "cancelled" | "done" | "failed";
};

/** The number of sessions that were ended. */
export type EndedSessionsBody = {
  ended: number;
};

/** The identity of an enrolled workload. */
export type EnrolledBody = {
  agent_id: string;
  issuer: string;
  kid: string;
};

/**
 * A request to register the first key of an agent. `proof`: a JWT of type `enrol+jwt`, signed with the key, with `aud`
 * (the issuer), `iat`, `exp`, and `jth`, the base64url SHA-256 of the join token.
 */
export type Enrolment = {
  join_token: string;
  jwk: Record<string, unknown>;
  proof: string;
};

/** An entry of the ledger: its index, its time in microseconds since the epoch, and the members that the act filled. */
export type EntryBody = {
  action: string;
  at: number;
  index: number;
};

/** A refusal of the administration API: a stable code, the error message, and the next step. */
export type ErrorBody = {
  error: string;
  hint?: string;
  message: string;
};

/** An evaluation of a batch. For a member that is absent, the member of the batch applies. */
export type EvaluationItem = {
  subject?: Thing | null;
  action?: Verb | null;
  resource?: Thing | null;
  context?: Record<string, unknown> | null;
};

export type EvaluationRequest = {
  subject: Thing;
  action: Verb;
  resource: Thing;
  context?: Record<string, unknown> | null;
};

export type EvaluationResponse = {
  decision: boolean;
  context?: ResponseContext | null;
};

/** A JWK Set (RFC 7517 section 5). */
export type FeedKeySet = {
  keys: Record<string, unknown>[];
};

/** A finding, with the person's verdict if there is one. Times are in seconds since the epoch. */
export type FindingBody = {
  agent: string | null;
  at: number;
  detector: string;
  entries: number[];
  finding_id: string;
  incident: string | null;
  judged_by: string | null;
  may_narrow: boolean;
  owner: string | null;
  points: number;
  proved: boolean;
  resource: string | null;
  says: string;
  score: number;
  task: string | null;
  verdict: string | null;
  why: string | null;
};

/** A finding with its entries and the present risk scores of its agent and task. */
export type FindingDetail = {
  about: string;
  agent: string | null;
  at: number;
  detector: string;
  entries: number[];
  finding_id: string;
  incident: string | null;
  judged_by: string | null;
  may_narrow: boolean;
  owner: string | null;
  points: number;
  proved: boolean;
  resource: string | null;
  rests_on: Record<string, unknown>[];
  risk: Record<string, number>;
  says: string;
  score: number;
  task: string | null;
  verdict: string | null;
  why: string | null;
};

/** The fields of tool results from which the arguments of a resource's tools took values. */
export type FlowsBody = {
  flows: SourceOfArgument[];
};

export type GiveBack = {
  spool: string;
  turn: number;
  keep: Record<string, number>;
};

export type GivenBack = {
  closed: string[];
};

/** A rule of a provider: members of `group` get `role` or join `team`. Exactly one of the two is set. */
export type GroupRule = {
  group: string;
  role?: string;
  team?: string;
};

/**
 * A connected guard. `since`: when the guard connected, in seconds since the epoch. `seq`: the last change that the
 * guard acknowledged. `applied`: whether the requested change is in force at the guard; without a requested change,
 * whether all changes sent so far are. `ms`: the milliseconds from the request's `since` until then.
 */
export type GuardBody = {
  applied: boolean;
  guard: string;
  ms: number | null;
  resource_id: string;
  seq: number | null;
  since: number;
  stream: string;
};

/**
 * The number of connected guards, the number of guards that have received a change which is not in force there yet
 * (`behind`), and the names of resources with a guard's key but without a connected guard (`missing`).
 */
export type GuardsBody = {
  behind: number;
  connected: number;
  missing: string[];
};

/**
 * The version of the guard's copy of the history (see `PriorHistory`); `seq` and `day` are 0 if the guard has no copy.
 * `met`: the version of its copy of the owner's counterparts; -1 if there is no copy.
 */
export type HistoryVersion = [number, number, number];

export type Hold = {
  holder: string;
};

/** A running copy of an agent that holds a task. */
export type HolderBody = {
  heard_at: number;
  holder: string;
  since: number;
};

/** A live holding of an agent, such as a token or a lease. Times are in seconds since the epoch. */
export type HoldingBody = {
  audience: string | null;
  expires_at: number;
  id: string;
  kind: string;
  task: string | null;
};

/**
 * A page of the live holdings of an agent. `ends`: the number of holdings that a stop of the agent would end, by kind;
 * these include the holdings of all agents to which the agent delegated.
 */
export type HoldingsBody = {
  ends: Record<string, number>;
  holdings: HoldingBody[];
  next: string | null;
};

/** An identifier: a DNS name or an IP address for which a certificate is requested. */
export type IdentifierBody = {
  type: "dns" | "ip";
  value: string;
};

/** The certificate of the pending intermediate, followed by the certificates above, including the root, in PEM. */
export type Import = {
  chain: string;
};

/** A pending intermediate, with its certificate request (PKCS #10) in PEM for the owner of the external root. */
export type ImportBody = {
  active_from: number | null;
  authority_id: string;
  certificate: string;
  created_at: number;
  has_key: boolean;
  key_type: string;
  kind: string;
  not_after: number;
  not_before: number;
  parent: string | null;
  permitted: string[];
  reason: string;
  request: string;
  revoked_at: number | null;
  state: string;
  subject: string;
};

/**
 * The decision of a person about an incident. `hours`: the duration of the restriction to reading. `is_real`: whether
 * the findings were real; null stands for false if the agent is released, and otherwise for true.
 */
export type IncidentAnswer = {
  reason: string;
  hours?: number;
  is_real?: boolean | null;
};

/** An incident, as lists show it. */
export type IncidentBody = {
  agent: string;
  agent_id: string;
  agent_state: string | null;
  closed_at: number | null;
  incident_id: string;
  opened_at: number;
  owner: string | null;
  person: string | null;
  risk: number;
  risk_now: number;
  says: string;
  state: string;
  why: string | null;
};

/** An incident with its findings, its responses (`acts`), its notes and its blast radius (`blast`). */
export type IncidentDetail = {
  acts: ResponseBody[];
  agent: string;
  agent_id: string;
  agent_state: string | null;
  blast: Record<string, unknown>;
  closed_at: number | null;
  findings: IncidentFinding[];
  incident_id: string;
  notes: IncidentNoteBody[];
  opened_at: number;
  owner: string | null;
  person: string | null;
  risk: number;
  risk_now: number;
  says: string;
  state: string;
  why: string | null;
};

/** A finding that belongs to an incident. */
export type IncidentFinding = {
  at: number;
  detector: string;
  entries: number[];
  finding_id: string;
  points: number;
  says: string;
  task: string | null;
};

/** A note of a person about an incident. */
export type IncidentNoteBody = {
  at: number;
  number: number;
  person: string;
  text: string;
};

/** An introspection response (RFC 7662 section 2.2); an active token has its claims too. */
export type IntrospectionBody = {
  active: boolean;
  token_type?: "Bearer" | "DPoP";
};

/** Lifetime of an initial access token in seconds, and the number of clients that can register with it. */
export type Invitation = {
  ttl?: number;
  uses?: number;
};

/** An initial access token (RFC 7591 section 3); it is shown once. */
export type InvitationBody = {
  expires_at: number;
  id: string;
  initial_access_token: string;
  uses: number;
};

/** A new MAC key with its secret in base64url. Only this response contains the secret. */
export type IssuedAcmeKey = {
  account: string | null;
  created_at: number;
  directory: string;
  expires_at: number;
  hmac_key: string;
  holder: string;
  kid: string;
  name: string;
  names: string[];
  profile: string;
  revoked_at: number | null;
};

/** An API key of a static PEP; it is shown once. */
export type IssuedPepKey = {
  expires_at: number;
  key: string;
  name: string;
  networks: string[];
  pep_id: string;
};

/**
 * A trusted issuer of signals and the state of its stream. `heard` and `heard_at`: the number of valid tokens, and the
 * time of the last one. For a stream by push, only the response to the creation contains `endpoint_url` and
 * `authorization_header`, the secret that the issuer must send.
 */
export type IssuerBody = {
  agents: boolean;
  audience: string;
  authorization_header?: string;
  domains: string[];
  endpoint_url?: string;
  heard: number;
  heard_at: number | null;
  issuer: string;
  issuer_id: string;
  method: string;
  trouble: string | null;
  verified_at: number | null;
};

/** A policy of a set, before or after a switch of sets. `effect`: `other` for a policy in Rego or OPA. */
export type Item = {
  id: string;
  effect: "forbid" | "other" | "permit";
  mode: "enforce" | "watch";
  safeguard?: boolean;
};

/** A join token; it is shown once. */
export type JoinTokenBody = {
  agent_id: string;
  expires_at: number;
  join_token: string;
};

/** A JWS in its flattened form (RFC 7515 section 7.2.2). */
export type JwsBody = {
  payload: string;
  protected: string;
  signature: string;
};

/**
 * A stored checkpoint: the number of entries, the time in microseconds since the epoch, and the note (C2SP tlog-
 * checkpoint).
 */
export type KeptCheckpointBody = {
  at: number;
  note: string;
  size: number;
};

/** A JWK Set (RFC 7517 section 5). */
export type KeySetBody = {
  keys: Record<string, unknown>[];
};

/**
 * The subject of a stop. `name`: the name or id of an agent, an owner or a resource, the id of a task, or the name of
 * a segment or a model; empty for `everything`. `why`: the reason.
 */
export type Kill = {
  what: "everything" | "model" | "owner" | "resource" | "segment" | "task" | "agent";
  why: string;
  name?: string;
};

/**
 * A new stop. `incident`: its incident if an agent was stopped, otherwise null. `seq`: the number of the change in the
 * guards' feed. `committed_at`: the time of the commit in microseconds. `undo`: the command that lifts the stop.
 */
export type KillBody = {
  committed_at: number;
  incident: string | null;
  seq: number;
  undo: string;
};

export type Kind = "assistant" | "autonomous" | "service" | "workflow";

/**
 * A lease. `attempts`: the number of failed attempts to remove the account; `error`: the error of the last one. Times
 * are seconds since the epoch.
 */
export type LeaseBody = {
  agent: string;
  agent_name: string;
  attempts: number;
  database: string;
  error: string;
  expires_at: number;
  issued_at: number;
  lease_id: string;
  state: string;
  task: string;
  username: string;
};

/** A lease to revoke. `forget`: delete the lease even if its account may still exist at the database or AWS. */
export type LeaseToRevoke = {
  lease_id: string;
  forget?: boolean;
};

export type Leave = {
  holder: string;
  outcome?: "cancelled" | "done" | "failed";
};

/**
 * A lifted stop: `seq`, the number of the change in the guards' feed, and `committed_at`, the time of its commit in
 * microseconds.
 */
export type LiftBody = {
  committed_at: number;
  seq: number;
};

/**
 * The result of one experiment. `state` is ok, weak (less protection than possible) or fail; `saw` is the observation,
 * or the problem; `ms` is the duration in milliseconds.
 */
export type Line = {
  name: string;
  state: string;
  saw: string;
  hint: string;
  ms: number;
};

export type Link = {
  sub: string;
  person?: string;
};

/** A `sub` of the issuer and the person linked to it. */
export type LinkBody = {
  person: string;
  sub: string;
};

/** The answer of the liveness route: the process responds. */
export type LiveBody = {
  status: "live";
};

/** The ways by which a person signs in with a local account. `recovery_codes` is the number of unused codes. */
export type LoginBody = {
  authenticator_app: boolean;
  passkeys: PasskeyBody[];
  password: boolean;
  person_id: string;
  recovery_codes: number;
};

/** A resource without a connected guard, and the time of its last report in seconds since the epoch. */
export type MissingGuardBody = {
  reported_at: number;
  resource: string;
};

/** Resources whose guards reported within a week, and of which none is connected. */
export type MissingGuardsBody = {
  missing: MissingGuardBody[];
};

export type Mode = "enforce" | "watch";

/**
 * An agent after a change of its state. `seq`: number of the change in the feed to guards; `committed_at`: time of its
 * commit in microseconds.
 */
export type MovedAgent = {
  agent_id: string;
  client_id: string;
  committed_at: number;
  created_at: number | null;
  data_classes: string[];
  deputy: string | null;
  epoch: number;
  expires_at: number | null;
  keys: AgentKeyBody[];
  kind: string;
  last_used_at?: number | null;
  max_depth: number;
  model: string;
  more_keys: boolean;
  name: string;
  owner: string | null;
  owner_id: string;
  provider: string;
  purpose: string;
  risk_tier: string;
  scopes: string[];
  segment: string;
  seq: number;
  speaks: boolean;
  spiffe_id: string;
  state: string;
  undo: string;
};

/**
 * The method by which an agent authenticates by certificate: exactly one subject (RFC 8705 section 2.1.2), or self-
 * signed certificates in PEM.
 */
export type MutualTls = {
  tls_client_auth_subject_dn?: string;
  tls_client_auth_san_dns?: string;
  tls_client_auth_san_uri?: string;
  tls_client_auth_san_ip?: string;
  tls_client_auth_san_email?: string;
  certificates?: string[];
  tls_client_certificate_bound_access_tokens?: boolean;
};

/**
 * The method by which an agent authenticates by certificate. `subject` has one member of RFC 8705 section 2.1.2, or is
 * empty for registered certificates.
 */
export type MutualTlsBody = {
  agent_id: string;
  certificates: CertificateRow[];
  since: number;
  subject: Record<string, string>;
  tls_client_certificate_bound_access_tokens: boolean;
  token_endpoint_auth_method: string;
};

/** A new access key with its secret key. Only this response contains the secret key. */
export type NewAccessKeyBody = {
  access_key_id: string;
  created_at: number;
  endpoint: string;
  expires_at: number;
  network: string;
  region: string;
  secret_access_key: string;
};

/**
 * A provider at which persons can connect accounts, described by an issuer with metadata, by a preset, or by
 * endpoints. Without `client_secret` and `authentication`, this server authenticates with a key that it publishes at
 * /jwks. `revokes_single_tokens`: the revocation of an access token at the provider leaves the refresh token valid.
 * `roles`: the roles that may connect accounts; none: every person.
 */
export type NewAccountProvider = {
  name: string;
  client_id: string;
  client_secret?: string;
  preset?: "" | "github" | "google" | "microsoft" | "slack";
  label?: string;
  issuer?: string;
  authorization_endpoint?: string;
  token_endpoint?: string;
  revocation_endpoint?: string;
  authentication?: "client_secret_basic" | "client_secret_post" | "none" | "private_key_jwt" | null;
  scopes?: string[];
  revokes_single_tokens?: boolean;
  roles?: string[];
};

/**
 * A request for a MAC key, for an agent or for a person. `profile`: the profile of the account's certificates.
 * `names`: patterns of the names that the account may order, such as `dns:*.example.com`. `days`: the number of days
 * within which the key can create its account.
 */
export type NewAcmeKeyRequest = {
  agent?: string | null;
  person?: string | null;
  profile?: string;
  names?: string[];
  days?: number;
};

export type NewAgent = {
  name: string;
  owner: string;
  purpose: string;
  kind?: Kind;
  deputy?: string | null;
  provider?: string;
  model?: string;
  risk_tier?: RiskTier;
  segment?: string;
  scopes?: string[];
  max_depth?: number;
  expires_in?: number | null;
  jwk?: Record<string, unknown> | null;
  undeclared?: boolean;
};

export type NewAgentKey = {
  jwk: Record<string, unknown>;
  expires_in?: number | null;
};

/** An authority to trust: its name, and its certificate in PEM. */
export type NewAnchor = {
  name: string;
  certificate: string;
};

/**
 * A new certificate authority. `key_type`: the type of its keys. `permitted`: the DNS names that it may certify, such
 * as `dns:example.com`; none: all names.
 */
export type NewAuthority = {
  key_type?: "Ed25519" | "P-256" | "P-384" | "RSA-2048" | "RSA-3072" | "RSA-4096" | null;
  permitted?: string[];
};

/**
 * A back end to configure. `credentials`: `token` for a Vault; `access_key_id` and `secret_access_key` for AWS.
 * `mount`: the mount at the Vault. `region`: the AWS region. `cache_s`: seconds for which a value stays in the memory
 * cache.
 */
export type NewBackend = {
  name: string;
  kind: BackendKind;
  address: string;
  mount?: string;
  region?: string;
  cache_s?: number;
  credentials?: Record<string, string>;
};

/** A catalogue to set. `proposed`: the server proposed the catalogue, and no person has confirmed it. */
export type NewCatalogue = {
  catalogue: Record<string, unknown>;
  proposed?: boolean;
  was?: string | null;
};

/** A request for a certificate. `csr` is a certificate signing request in PEM, signed by the key of the certificate. */
export type NewCertificate = {
  csr: string;
  profile?: string;
  agent?: string | null;
  person?: string | null;
  task?: string | null;
  names?: string[];
  lifetime?: number | null;
  replaces?: string | null;
};

export type NewClasses = {
  data_classes: string[];
};

/**
 * A destination to create: its secret's path, the member (empty: the only member), and the scopes of an access token
 * of a connected account (none: all scopes).
 */
export type NewDestination = {
  name: string;
  origin: string;
  place: Place;
  field?: string;
  template?: string;
  private?: boolean;
  secret: string;
  member?: string;
  scopes?: string[];
};

/** A request for an intermediate whose certificate an external root issues. */
export type NewImport = {
  key_type?: "Ed25519" | "P-256" | "P-384" | "RSA-2048" | "RSA-3072" | "RSA-4096" | null;
};

/** A note: 1 to 2,000 characters. */
export type NewIncidentNote = {
  text: string;
};

/**
 * An issuer to trust. `authorization` is the Authorization header (`Bearer ...`) with which this server creates the
 * stream at the issuer. Without `authorization`, an operator of the issuer creates the stream. `endpoint`: the URL to
 * poll, if the stream exists already. `domains`: the issuer may speak for persons whose mail address is in one of
 * these. `agents`: the issuer may also speak for agents of this server.
 */
export type NewIssuer = {
  issuer: string;
  method?: "poll" | "push";
  audience?: string;
  domains?: string[];
  agents?: boolean;
  authorization?: string;
  jwks_uri?: string;
  endpoint?: string;
};

/** A request for a join token. `ttl`: its lifetime in seconds. */
export type NewJoinToken = {
  ttl?: number;
};

export type NewLink = {
  sub: string;
  person: string;
};

/** A new list, with either `url` or `text`. */
export type NewList = {
  name: string;
  form: "plain" | "stix";
  url?: string;
  text?: string;
  points?: number;
};

export type NewMode = {
  mode: Mode;
};

/**
 * A static PEP to register. `networks`: addresses or networks (CIDR) from which requests may come; `days`: lifetime of
 * the API key in days.
 */
export type NewPep = {
  name: string;
  networks: string[];
  days?: number;
};

/** A person to register. `jwk` is the public key with which the person answers approval requests. */
export type NewPerson = {
  name: string;
  email?: string | null;
  deputy?: string | null;
  jwk?: Record<string, unknown> | null;
};

export type NewPersonKey = {
  jwk: Record<string, unknown>;
};

/**
 * A login provider to add. OpenID Connect: `name`, `issuer` and `client_id`; the other members have defaults, those of
 * the `preset` if it is set (the preset `google` also needs `hd` in `require`). SAML 2.0: `name`, and in
 * `saml_metadata` the XML document of the provider's metadata, instead of issuer, client and preset. `mfa` and
 * `phishing_resistant`: values of `acr` and `amr` (SAML: of `AuthnContextClassRef`) that are accepted as two factors
 * and as phishing resistant. `require`: claims (SAML: attributes) that an account must have, each with its value.
 * `accounts`: at the first login of a person, `create` creates an account, and `refuse` refuses the login.
 */
export type NewProvider = {
  name: string;
  issuer?: string;
  client_id?: string;
  client_secret?: string;
  saml_metadata?: string;
  preset?: "" | "entra" | "okta" | "google" | "keycloak";
  label?: string;
  authentication?: "client_secret_basic" | "client_secret_post" | "none" | "private_key_jwt" | null;
  scopes?: string[] | null;
  userinfo?: boolean | null;
  group_claim?: string | null;
  rules?: GroupRule[];
  require?: Record<string, string>;
  accounts?: "create" | "refuse";
  mfa?: string[];
  phishing_resistant?: string[];
};

/**
 * A what-if to run: the files of the candidate policy set. `since`, `until`: the times in microseconds between which
 * recorded decisions are replayed; without `until`, until now. `by`: the property of subjects by which changed
 * verdicts are grouped.
 */
export type NewQuestion = {
  files: Record<string, string>;
  since: number;
  until?: number | null;
  by?: "" | "agent" | "owner";
};

export type NewResource = {
  name: string;
  uri: string;
  mode?: Mode;
  segment?: string;
  jwk?: Record<string, unknown> | null;
  catalogue?: Record<string, unknown> | null;
  proposed?: boolean;
  data_classes?: string[] | null;
};

export type NewResourceKey = {
  jwk: Record<string, unknown>;
};

/** A role to grant. `subject`: the name or id of a person or team. */
export type NewRole = {
  subject: string;
  role: string;
};

/**
 * The rotation of one member of a secret. `period`, `grace`: seconds. State exactly one service: `url` gets signed
 * calls, `command` names a command of the server's configuration, `registration` is the URL of the registration of an
 * OAuth client (RFC 7592).
 */
export type NewRotation = {
  path: string;
  member: string;
  url?: string;
  command?: string;
  registration?: string;
  period: number;
  grace?: number;
};

/** A new rotation with its signing key. Only this response contains the signing key. */
export type NewRotationBody = {
  attempts: number;
  command: string;
  error: string;
  grace: number;
  last_at: number | null;
  member: string;
  next_at: number | null;
  path: string;
  period: number;
  registration: string;
  retire_at: number | null;
  signing_key: string;
  url: string;
};

/**
 * A value to store. `cas`: the number that the current version must have; 0: the secret must be new; left out: any
 * number.
 */
export type NewSecretValue = {
  path: string;
  data: Record<string, unknown>;
  cas?: number | null;
};

/**
 * A policy set to validate and activate: its files by name. `loses`: the ids of the safeguards of the server that the
 * new set may leave out although they apply now.
 */
export type NewSet = {
  files: Record<string, string>;
  loses?: string[];
};

/** A request for a setup link. `hours` is the lifetime of the link in hours. */
export type NewSetupLink = {
  hours?: number;
};

export type NewStatus = {
  stream_id: string;
  status: "disabled" | "enabled" | "paused";
  reason?: string;
};

/** A subscription as `PushSubscription.toJSON` of a browser writes it. */
export type NewSubscription = {
  endpoint: string;
  keys: BrowserKeys;
};

export type NewTask = {
  purpose: string;
  agent?: string | null;
  bounds?: unknown[];
  data_classes?: string[] | null;
  budget?: unknown[];
  intent?: Record<string, unknown> | null;
  scopes?: string[] | null;
  on_behalf_of?: string | null;
  parent?: string | null;
  ttl?: number;
  heartbeat?: number | null;
  end_with_last?: boolean;
};

export type NewTeam = {
  name: string;
  members?: string[];
  deputy?: string | null;
};

/** A trust domain to federate with: its name, and the URL at which it publishes its bundle. */
export type NewTrustDomain = {
  name: string;
  bundle_url: string;
  endpoint_spiffe_id?: string;
  bundle?: Record<string, unknown> | null;
};

/** A webhook to add. `events`: actions of the ledger, such as `approval.ask`; empty for the default actions. */
export type NewWebhook = {
  url: string;
  events?: string[];
  form?: "mail" | "mattermost" | "plain" | "signed" | "slack" | "teams";
};

/**
 * A call of the tool, with its hashed recipients. The server adds the call to the history if the guard's copy of the
 * history is current. The server takes all other facts of the call from the catalogue. `is_more`: true if the call has
 * more recipients than `recipients`. `met`: the recipients hashed with the key of the owner's counterparts; empty if
 * the guard does not have this key.
 */
export type Next = [string[], boolean, string[]];

/** The number of the record in the guard's spool that the server expects next. */
export type NextRecord = {
  next: number;
};

/**
 * A finding of a detector about one event. `points` (1 to 100) raise the risk score of the agent and of its task.
 * `says` explains the finding to a person, and contains no value of an argument.
 */
export type Noticed = {
  detector: string;
  points: number;
  says: string;
};

/** A refusal of an OAuth endpoint (RFC 6749 section 5.2). */
export type OAuthError = {
  error: string;
  error_description: string;
};

export type OldLink = {
  sub: string;
};

/** An order (RFC 8555 section 7.1.3). */
export type OrderBody = {
  authorizations: string[];
  certificate?: string;
  error?: ProblemBody;
  expires: string;
  finalize: string;
  identifiers: IdentifierBody[];
  notAfter?: string;
  replaces?: string;
  status: string;
};

/** The URLs of an account's orders. */
export type OrdersBody = {
  orders: string[];
};

/**
 * The state of the server at a glance. `changes`: the number of entries since `since`, by action. If the caller may
 * not read the list behind a member, the member is left out.
 */
export type OverviewBody = {
  agents?: AgentsBody;
  approvals?: number;
  changes: Record<string, number>;
  checkpoint: CheckpointBody;
  decisions?: DecisionsBody;
  findings?: number;
  guards?: GuardsBody;
  incidents?: number;
  now: number;
  since: number;
  steps: StepBody[];
  stops?: number;
};

/**
 * The calling person. `operations` lists each method and path that a role of the person permits. `issuer` is the
 * identifier of this server, which a credential file states.
 */
export type OwnSessionBody = {
  acr: string;
  issuer: string;
  name: string;
  operations: string[];
  person_id: string;
  roles: string[];
};

/**
 * The body of a request to count a call: the token under which the call is made. The agent, or another agent in its
 * chain, is throttled.
 */
export type Paced = {
  token: string;
};

export type PageAsked = {
  token?: string | null;
  limit?: number | null;
  properties?: Record<string, unknown> | null;
};

/**
 * Hashed words of one origin, which count for the kinds of arguments in `kinds` (bits, see BIT). `classes`: the data
 * classes of the content, if the kind is LABEL.
 */
export type Part = [number, number, string, string[]];

/** A passkey of a person. `used_at`: time of its last use to sign in; null if it was never used. */
export type PasskeyBody = {
  added_at: number;
  name: string;
  used_at: number | null;
};

/** A change at a path of the target: `create`, `update`, `same`, `failed` or `skipped`. */
export type PathChangeBody = {
  change: string;
  error: string;
  path: string;
};

/** A static policy enforcement point and its API keys. */
export type PepBody = {
  created_at: number;
  keys: PepKeyBody[];
  name: string;
  networks: string[];
  pep_id: string;
  revoked_at: number | null;
};

/** An API key without its secret. */
export type PepKeyBody = {
  created_at: number;
  expires_at: number;
  key_id: string;
  used_at: number | null;
};

/** A request for another API key. `overlap_h`: hours after which the older keys expire. */
export type PepKeyRotation = {
  days?: number;
  overlap_h?: number;
};

/** A person, who can own agents. */
export type PersonBody = {
  created_at: number | null;
  deputy: string | null;
  email: string | null;
  name: string;
  person_id: string;
  state: string;
};

/** A public key of a person. */
export type PersonKeyBody = {
  added_at: number | null;
  alg: string;
  jwk: Record<string, unknown>;
  kid: string;
  person_id: string;
  revoked_at: number | null;
};

/** A person's id, name and new state. */
export type PersonStateBody = {
  name: string;
  person_id: string;
  state: string;
};

/** The place of a secret in a request. `placeholder`: only where the program sends `OSTIARY:NAME`. */
export type Place = "body" | "header" | "placeholder" | "query";

/**
 * The changes that the activation of another policy set makes. `files`: by name, the files that differ, except files
 * of Cedar policies; Cedar policies are listed one by one.
 */
export type Plan = {
  against: string;
  added: Item[];
  changed: Changed[];
  removed: Item[];
  files: Record<string, "added" | "changed" | "removed">;
  loses: string[];
  left_out: string[];
};

/**
 * The approval request for a plan (several probable calls of a task together); null if there are fewer than two such
 * calls.
 */
export type PlanQuestion = {
  question: ApprovalBody | null;
};

/** A stored policy set. */
export type PolicySetBody = {
  active: boolean;
  created_at: number;
  created_by: string | null;
  hash: string;
  notes?: string[];
  policies: number;
  safeguards: number;
  tests: number;
  watching?: boolean;
};

/** A stored policy set with its files and safeguards. */
export type PolicySetDetail = {
  active: boolean;
  created_at: number;
  created_by: string | null;
  extends: unknown;
  files: Record<string, string>;
  hash: string;
  left_out: string[];
  notes?: string[];
  policies: number;
  safeguards: number;
  tests: number;
  watching?: boolean;
};

/** The body of a poll (RFC 8936 section 2.2). */
export type Poll = {
  maxEvents?: number | null;
  returnImmediately?: boolean;
  ack?: string[];
  setErrs?: Record<string, SetError>;
};

/** Security event tokens by their `jti` (RFC 8936 section 2.3). */
export type PollBody = {
  moreAvailable?: boolean;
  sets: Record<string, string>;
};

/** The response body of a refused access request: problem details (RFC 9457). */
export type Problem = {
  detail: string;
  status: number;
  title: string;
  type: string;
};

/** A problem document (RFC 7807, RFC 8555 section 6.7). */
export type ProblemBody = {
  algorithms?: string[];
  detail: string;
  status?: number;
  subproblems?: SubproblemBody[];
  type: string;
};

/**
 * A proposed policy that would permit calls which persons approved repeatedly and never denied. `named`: the values of
 * the arguments that all these calls share; `amounts`: the largest approved amount of each amount argument; `others`:
 * further arguments of the tool, which the approved calls left out; `occasions`: the number of different tasks (days,
 * for the standing task) in which people approved.
 */
export type Proposal = {
  agent: string;
  agent_id: string;
  amounts: Record<string, unknown>;
  approvals: string[];
  effect: string;
  is_closed: boolean;
  named: Record<string, unknown>;
  occasions: number;
  others: string[];
  policies: string[];
  tool: string;
  types: Record<string, unknown>;
  words: string;
};

/** The proposals of policies for an agent. */
export type ProposalsBody = {
  proposals: Proposal[];
};

/** A login provider. `redirect_uri` must be registered at the provider; a login begins at `login_url`. */
export type ProviderBody = {
  accounts: string;
  client_id: string;
  created_at: number;
  group_claim: string;
  has_secret: boolean;
  issuer: string;
  label: string;
  login_url: string;
  mfa: string[];
  name: string;
  phishing_resistant: string[];
  preset: string;
  protocol: string;
  provider_id: string;
  redirect_uri: string;
  require: Record<string, string>;
  rules: GroupRule[];
};

/** Settings of a login provider to change. Members that are left out do not change. */
export type ProviderChanges = {
  client_secret?: string;
  label?: string | null;
  group_claim?: string | null;
  rules?: GroupRule[] | null;
  accounts?: "create" | "refuse" | null;
  mfa?: string[] | null;
  phishing_resistant?: string[] | null;
};

/** The login providers by name. */
export type ProvidersBody = {
  providers: ProviderBody[];
};

/** A destination as an egress proxy receives it. */
export type ProxyDestination = {
  field: string;
  name: string;
  origin: string;
  place: string;
  private: boolean;
  template: string;
};

/** All destinations. */
export type ProxyDestinations = {
  destinations: ProxyDestination[];
};

/** The description of a deleted task, from its entries in the ledger. */
export type PrunedTask = {
  agent: string | null;
  agent_id: string | null;
  created_at: number;
  ended_at: number | null;
  history: TaskEvent[];
  outcome: string | null;
  parent: string | null;
  purpose: string;
  state: "pruned";
  task_id: string;
};

/** The public key of the server for `PushManager.subscribe`, and the subscribed browsers of the person. */
export type PushBody = {
  key: string;
  subscriptions: SubscriptionBody[];
};

/** The response to a pushed authorization request (RFC 9126 section 2.2). */
export type PushedBody = {
  expires_in: number;
  request_uri: string;
};

/** A pushed authorization request (RFC 9126 section 2.1). */
export type PushedForm = {
  acr_values?: string;
  authorization_details?: string;
  claims?: string;
  client_assertion?: string;
  client_assertion_type?: string;
  client_id?: string;
  client_secret?: string;
  code_challenge?: string;
  code_challenge_method?: string;
  dpop_jkt?: string;
  id_token_hint?: string;
  login_hint?: string;
  max_age?: string;
  nonce?: string;
  prompt?: string;
  redirect_uri?: string;
  request?: string;
  resource?: string;
  response_mode?: string;
  response_type?: string;
  scope?: string;
  state?: string;
};

/** The result of each check: `ok` or the defect. */
export type ReadyBody = {
  checks: Record<string, string>;
  status: "not ready" | "ready";
};

/**
 * The reason of a denial: a stable code, a message, a hint. It quotes no value of an argument. With the code
 * `insufficient_user_authentication`, the demand on the token (RFC 9470 section 3): one of `acr_values`, and an
 * `auth_time` at most `max_age` seconds ago.
 */
export type Reason = {
  code: string;
  message?: string;
  hint?: string;
  acr_values?: string;
  max_age?: number | null;
};

export type Recall = {
  call: string;
  token: string;
  seq?: number;
  tool?: string;
  parts?: Part[];
  past?: HistoryVersion | null;
  next?: Next | null;
  made?: string[];
};

/** A receipt: the bytes of an entry, and the C2SP tlog-proof of their inclusion. */
export type ReceiptBody = {
  entry: string;
  index: number;
  proof: string;
};

/** A page of receipts under one checkpoint, the newest entry first. `next` is the value of `before` for the next page. */
export type ReceiptsBody = {
  next: string | null;
  receipts: ReceiptBody[];
};

export type RecordedReason = {
  code: string;
  message?: string;
};

/** An OAuth client. `digest` changes with its name, its redirect URIs or its keys; people then have to consent again. */
export type RegisteredClientBody = {
  changed_at: number;
  client_id: string;
  created_at: number;
  digest: string;
  host?: string;
  id: string;
  kind: string;
  name: string;
  network: string;
  redirect_uris: string[];
  state: string;
  token_endpoint_auth_method: string;
  used_at: number | null;
};

/** A registered client (RFC 7591 section 3.2.1): the members below and all registered metadata of the client. */
export type RegistrationBody = {
  application_type: string;
  client_id: string;
  client_id_issued_at: number;
  client_name?: string;
  client_secret?: string;
  client_secret_expires_at?: number;
  grant_types: string[];
  redirect_uris?: string[];
  registration_access_token: string;
  registration_client_uri: string;
  response_types: string[];
  token_endpoint_auth_method: string;
};

export type RemotePolicyRequest = {
  call: string;
  token: string;
  policy: string;
  question: unknown;
};

/**
 * The results of remote policies: the digest of the question, and the result of each policy. The ledger entry with
 * which the server recorded its answer has the same digest.
 */
export type RemoteRecord = {
  question: string;
  said: Record<string, "error" | "forbid" | "neither" | "permit">;
};

export type Renewal = {
  ttl?: number;
};

/** The window in which a client should renew a certificate (RFC 9773 section 4.2). */
export type RenewalBody = {
  suggestedWindow: Record<string, string>;
};

/**
 * `replayed`: the number of stops that were carried out. `unverified`: the number of messages of the lost part of the
 * history that no known key has signed.
 */
export type ReplayedBody = {
  replayed: number;
  unverified: number;
};

/** Records of one spool with the numbers `first`, `first` + 1, and so on. */
export type Report = {
  spool: string;
  first: number;
  records: (CallRecord | UndecidedRecord | ResultRecord)[];
};

/**
 * The state of an access request. If the request is approved, `result` states how to evaluate it again with the
 * approval.
 */
export type RequestBody = {
  result?: Record<string, unknown>;
  task: RequestTask;
};

/**
 * The approval request that an access request created, in the form of the profile; `expires_at`: the end of the time
 * for an answer.
 */
export type RequestTask = {
  expires_at: string;
  id: string;
  links?: Record<string, string>;
  status: "approved" | "cancelled" | "denied" | "expired" | "pending";
  status_endpoint: string;
};

/** A protected resource, without its catalogue. */
export type ResourceBody = {
  catalogue_hash: string | null;
  catalogue_proposed: boolean;
  catalogue_version: number;
  created_at: number | null;
  kid: string | null;
  mode: string;
  name: string;
  resource_id: string;
  segment: string;
  uri: string;
};

/** A protected resource with the data classes that each of its tools handles. */
export type ResourceClasses = {
  catalogue_hash: string | null;
  catalogue_proposed: boolean;
  catalogue_version: number;
  created_at: number | null;
  data_classes: string[];
  kid: string | null;
  mode: string;
  name: string;
  resource_id: string;
  segment: string;
  uri: string;
};

/** A protected resource with its catalogue. */
export type ResourceDetail = {
  catalogue: unknown;
  catalogue_hash: string | null;
  catalogue_proposed: boolean;
  catalogue_version: number;
  created_at: number | null;
  kid: string | null;
  mode: string;
  name: string;
  resource_id: string;
  segment: string;
  uri: string;
};

export type ResourceSearch = {
  subject: Thing;
  action: Verb;
  resource: Sought;
  context?: Record<string, unknown> | null;
  page?: PageAsked;
  options?: SearchOptions;
};

/**
 * The use of one resource by one agent. `tasks`: the number of the agent's recent tasks at the resource. `peers`: the
 * number of peers, which are the other agents of the same kind among the 200 last active agents at the resource.
 */
export type ResourceUse = {
  peers: number;
  resource: string;
  tasks: number;
  tools: ToolUse[];
};

/** A response to the findings of an incident: carried out, or not carried out for the reason in `says`. */
export type ResponseBody = {
  at: number;
  outcome: string;
  policies: string[];
  response: string;
  says: string;
  task: string | null;
};

export type ResponseContext = {
  policy?: string;
  policies?: string[];
  reasons?: Reason[];
  reason_admin?: Record<string, string> | null;
  reason_user?: Record<string, string> | null;
  reason?: string;
  next_action?: string;
  evaluation_id?: string;
  evaluated_at?: string;
  access_request?: Record<string, string> | null;
  approval?: Record<string, string> | null;
  obligations?: Record<string, unknown>[] | null;
  error?: Record<string, unknown> | null;
};

/** The result of an allowed call. `call`: the number of the call's record in the same spool. */
export type ResultRecord = {
  kind: "result";
  at: number;
  call: number;
  status: "error" | "ok";
  bytes?: number | null;
  records?: number | null;
  data_class?: string;
  unused?: Record<string, number>;
};

/** The revocation of a certificate, or of an intermediate authority. */
export type Revocation = {
  reason?: RevocationReason;
};

/**
 * The number of ended objects by kind. The change has the number `seq` in the feed, and was committed at
 * `committed_at` (microseconds).
 */
export type RevocationBody = {
  committed_at: number;
  revoked: Record<string, number>;
  seq: number;
  state: string;
  undo: string;
};

/** The revocation reasons that callers may state (RFC 5280 section 5.3.1). */
export type RevocationReason = "affiliationChanged" | "cessationOfOperation" | "keyCompromise" | "privilegeWithdrawn" | "superseded" | "unspecified";

/** Numbers of objects that ended with the revoked object, by kind. */
export type RevokedBody = {
  revoked: Record<string, number>;
};

export type RevokedKind = "agent" | "key" | "owner" | "task" | "token";

/**
 * An agent and its risk score. `held`: the kinds of its restrictions in force, such as `throttle`; `incident`: its
 * open incident.
 */
export type RiskBody = {
  agent: string;
  agent_id: string;
  held: string[];
  incident: string | null;
  risk: number;
  state: string | null;
};

export type RiskTier = "critical" | "high" | "low" | "medium";

/**
 * A role of a person or team. `source` is the login provider whose rule granted the role; empty if an administrator
 * granted it.
 */
export type RoleBody = {
  granted_at: number;
  name: string;
  role: string;
  source: string;
  subject: string;
};

/** The roles that the active policies name. */
export type RoleNamesBody = {
  roles: string[];
};

/**
 * The paths of secrets whose rotation has started, the number of revoked leases, and the paths of secrets that a
 * person must replace.
 */
export type RotatedSecrets = {
  revoked: number;
  rotating: string[];
  to_replace: string[];
};

/** The replacement of the active root or of the active intermediate. */
export type Rotation = {
  kind?: "intermediate" | "root";
  key_type?: "Ed25519" | "P-256" | "P-384" | "RSA-2048" | "RSA-3072" | "RSA-4096" | null;
  overlap?: number;
};

/**
 * A rotation. `next_at`: the time of the next call, `null` for a rotation that an agent has cancelled. `retire_at`:
 * the end of the present grace period, `null` outside a grace period. Times are seconds since the epoch. `attempts`:
 * the number of failed calls; `error`: the error of the last one.
 */
export type RotationBody = {
  attempts: number;
  command: string;
  error: string;
  grace: number;
  last_at: number | null;
  member: string;
  next_at: number | null;
  path: string;
  period: number;
  registration: string;
  retire_at: number | null;
  url: string;
};

/** The path of a secret that has a rotation. */
export type RotationPath = {
  path: string;
};

/** The body of a refusal, in the form `google.rpc.Status`. */
export type RpcStatus = {
  code: number;
  message: string;
};

/** The schema that every policy set extends, in Cedar's human-readable syntax. */
export type SchemaBody = {
  schema: string;
};

/**
 * A granted scope and its use. `used`: a recent task called a tool that needs the scope. `unused`: no recent task did,
 * although guards reported calls of the agent at the resource; or the scope's resource is not registered, and guards
 * reported calls of the agent elsewhere. `unknown`: guards reported no call of the agent.
 */
export type ScopeUse = {
  scope: string;
  use: "unknown" | "unused" | "used";
};

/**
 * The state of the seal. `unseal_key`: the fingerprint of the unseal key; `null` if there is no unseal key.
 * `sealed_at`: seconds since the epoch; `null` if the secrets are not sealed.
 */
export type SealBody = {
  sealed: boolean;
  sealed_at: number | null;
  unseal_key: string | null;
  wrapping_keys: WrappingKeyBody[];
};

/**
 * A request to seal. `unseal_public_key`: the public part of the unseal key (X25519, base64url); if it is left out,
 * the server seals for the unseal key of the previous seal.
 */
export type SealOrder = {
  unseal_public_key?: string | null;
};

/**
 * A page of results: ids of entities or names of actions. A result that is permitted only for some values names the
 * inputs on which it depends.
 */
export type SearchBody = {
  context: Record<string, unknown>;
  page: Record<string, unknown>;
  results: Record<string, unknown>[];
};

/**
 * `uncertain`: whether the results include entities and actions that are permitted only for some values of arguments
 * that the search does not state.
 */
export type SearchOptions = {
  uncertain?: "exclude" | "include";
};

/** The token of a call, and the texts in the call's arguments, which the server searches for secrets. */
export type SearchedText = {
  token: string;
  text: string;
};

/**
 * A request to delete. `versions`: `current` deletes the current version, which can be restored (in the mount `kv`,
 * the secret is deleted permanently); `all` permanently deletes the secret with all versions.
 */
export type SecretDeletion = {
  path: string;
  versions?: "all" | "current";
};

/** The names in a folder; names of folders end with a slash. */
export type SecretNamesBody = {
  folder: string;
  names: string[];
};

/** A request to read a value. `version`: the number of the version; 0: the current version. */
export type SecretReading = {
  path: string;
  version?: number;
};

export type SecretRequest = {
  ttl?: number;
};

/**
 * The request into which an egress proxy puts a secret: the id of the agent's token for the proxy, the destination,
 * and the method, the host and the path of the request.
 */
export type SecretUse = {
  token: string;
  destination: string;
  method: string;
  host: string;
  path: string;
};

/**
 * The last read and change of a secret. `rotated_at`: the time at which the current version was stored. `read_by`: the
 * agent or person that last read a value, `null` if no value was ever read. Times are seconds since the epoch.
 */
export type SecretUseBody = {
  is_canary: boolean;
  path: string;
  read_at: number | null;
  read_by: string | null;
  rotated_at: number;
  version: number;
};

/** A version of a secret with its value. */
export type SecretValueBody = {
  created_at: number;
  data: Record<string, unknown>;
  path: string;
  version: number;
};

/** A version of a secret, without its value. `created_at`: seconds since the epoch. */
export type SecretVersionBody = {
  created_at: number;
  path: string;
  version: number;
};

/**
 * Facts that a process must have: effective user and group, path and SHA-256 (hexadecimal) of its executable, systemd
 * unit, cgroup (or a cgroup below it), and UID of its Kubernetes pod. None: any value matches.
 */
export type Selectors = {
  uid?: number | null;
  gid?: number | null;
  path?: string | null;
  sha256?: string | null;
  unit?: string | null;
  cgroup?: string | null;
  pod?: string | null;
};

/** The session of a person in one browser. `authenticated_at` is the time of the oldest proof that `acr` needs. */
export type SessionBody = {
  acr: string;
  amr: string[];
  authenticated_at: number;
  browser: string;
  created_at: number;
  expires_at: number;
  network: string;
  person_id: string;
  provider: string;
  session_id: string;
  used_at: number;
};

/** The live sessions of a person, the last used first. */
export type SessionsBody = {
  sessions: SessionBody[];
};

export type SetError = {
  err: string;
  description?: string;
};

export type Settled = {
  spool: string;
  told: number;
};

/** A link with which a person sets up a login; it is shown once, and can be used once. */
export type SetupLinkBody = {
  expires_at: number;
  person_id: string;
  url: string;
};

/** The use, the algorithm and the key id of the new signing key. */
export type SigningKeyBody = {
  alg: string;
  kid: string;
  use: string;
};

export type SigningKeyRotation = {
  use?: "feed" | "token";
  alg?: string;
};

/**
 * The searched part of an AuthZEN search: a subject or resource with a type, but without an id. The candidates are all
 * entities of this type that the server or the policy set knows. `properties`: attributes of each candidate of an
 * unregistered type. An attribute that the policy set states for the candidate overrides the property of the same
 * name.
 */
export type Sought = {
  type: string;
  properties?: Record<string, unknown> | null;
};

/** A value of `argument` (a dotted path) equals the field `field` (a dotted path) in an earlier output of `tool`. */
export type Source = [string, string, string];

/**
 * An argument of a tool, a field of tool results (`source_tool`, `source_field`) from which the argument took values,
 * and the numbers of tasks and agents with such a call, each at most 64.
 */
export type SourceOfArgument = {
  agents: number;
  argument: string;
  source_field: string;
  source_tool: string;
  tasks: number;
  tool: string;
};

/** The body of a request that changes the state of an agent: the reason for the change. */
export type StateChange = {
  why?: string;
};

/** A suggested next step for the administrator: its kind, the number of objects that it is about, and a sentence. */
export type StepBody = {
  count: number;
  kind: "agent" | "approvals" | "guards" | "incidents" | "pending" | "resource" | "risk" | "stops" | "watching";
  says: string;
};

/** A stop that is in force. */
export type StopBody = {
  by: string | null;
  incident: string | null;
  name: string;
  since: number;
  what: string;
  why: string;
};

/** Signed messages of the feed with stops, which a guard has kept. */
export type Stops = {
  messages: string[];
};

/** A stream of signals to a receiver and the state of its deliveries. */
export type StreamBody = {
  delivered: number;
  delivered_at: number | null;
  description: string;
  events: string[];
  failed: string | null;
  lost: number;
  method: "poll" | "push";
  receiver: string;
  status: string;
  stream_id: string;
};

/** A stream's configuration as the receiver sees it (SSF 8.1.1). */
export type StreamConfiguration = {
  aud: string;
  delivery: Record<string, string>;
  description?: string;
  events_delivered: string[];
  events_requested?: string[];
  events_supported: string[];
  iss: string;
  min_verification_interval: number;
  stream_id: string;
};

export type StreamState = {
  status: "disabled" | "enabled" | "paused";
  reason?: string;
};

/** The status of a stream (SSF 8.1.2). */
export type StreamStatus = {
  reason?: string;
  status: "disabled" | "enabled" | "paused";
  stream_id: string;
};

export type Subject = {
  stream_id: string;
  subject: Record<string, unknown>;
  verified?: boolean;
};

export type SubjectSearch = {
  subject: Sought;
  action: Verb;
  resource: Thing;
  context?: Record<string, unknown> | null;
  page?: PageAsked;
  options?: SearchOptions;
};

/**
 * A submitted access request (AuthZEN Access Request and Approval Profile, section "Access Request Submission").
 * Unknown members are ignored.
 */
export type Submission = {
  subject: Thing;
  resource: Thing;
  action: Verb;
  denial?: Denied | null;
  context?: Record<string, unknown> | null;
};

/** A problem that concerns one identifier of an order. */
export type SubproblemBody = {
  detail: string;
  identifier: Record<string, string>;
  type: string;
};

/** A subscribed browser of the person. `service` is the origin of the browser's push service. */
export type SubscriptionBody = {
  browser: string;
  created_at: number;
  service: string;
  subscription_id: string;
};

/** The reason for the suspension or the resumption, which the ledger records. */
export type Suspension = {
  why?: string;
};

/** The changes of a synchronisation. */
export type SyncBody = {
  changes: PathChangeBody[];
};

/**
 * A request to copy values from `source` to `target`: one is `backend/NAME/PATH`, the other `secret/PATH` or
 * `kv/PATH`. The path of a folder ends with a slash. `dry_run`: report the changes without making them.
 */
export type SyncOrder = {
  source: string;
  target: string;
  dry_run?: boolean;
};

/** The summary of a task, which lists show. Times are in seconds since the epoch. */
export type TaskBody = {
  agent: string;
  agent_id: string;
  created_at: number;
  depth: number;
  elevated?: string[];
  ended_at: number | null;
  expires_at: number | null;
  on_behalf_of: string | null;
  parent: string | null;
  purpose: string;
  scopes: string[];
  state: string;
  task_id: string;
};

/** A task with its bounds, budgets, intent and holders. */
export type TaskDetail = {
  agent: string;
  agent_id: string;
  bounds: Record<string, unknown>[];
  budgets: Balance[];
  created_at: number;
  data_classes: string[] | null;
  depth: number;
  elevated?: string[];
  end_with_last?: boolean;
  ended_at: number | null;
  expires_at: number | null;
  heartbeat?: number;
  holders?: HolderBody[];
  intent?: Record<string, unknown>;
  on_behalf_of: string | null;
  parent: string | null;
  purpose: string;
  scopes: string[];
  state: string;
  task_id: string;
};

/** A short form of an entry of the ledger about a task. */
export type TaskEvent = {
  action: string;
  at: number;
  index: number;
  outcome: string;
};

/** A team, which can own agents. */
export type TeamBody = {
  created_at: number | null;
  deputy: string | null;
  members: (string | null)[];
  name: string;
  team_id: string;
};

/**
 * The connected guards. `seq` is the number of the test message. `ms` of a guard is the time from the commit of the
 * test message until the message was in force there.
 */
export type TestedGuards = {
  guards: GuardBody[];
  seq: number;
};

/** The result of a dry run: the set is valid and was not stored. `plan`: the changes that its activation would make. */
export type TestedPolicySet = {
  active: boolean;
  hash: string;
  notes?: string[];
  plan?: Plan;
  policies: number;
  safeguards: number;
  tests: number;
};

/** The subject or the resource of an AuthZEN access request, as the caller states it. `properties`: its attributes. */
export type Thing = {
  type: string;
  id: string;
  properties?: Record<string, unknown> | null;
};

/** A threat list and the state of its last fetch. */
export type ThreatListBody = {
  count: number;
  failed: string | null;
  form: string;
  name: string;
  points: number;
  refreshed_at: number | null;
  skipped: number;
  url: string;
};

/**
 * The change that a fetch of the list would make now: the number of values in the fetched list (`count`), only in the
 * fetched list (`new`) and only in the stored list (`gone`), and of items that the server cannot check (`skipped`). If
 * the server would not accept the content, `failed` is the reason, and the numbers are null.
 */
export type ThreatListTest = {
  count: number | null;
  failed: string | null;
  gone: number | null;
  name: string;
  new: number | null;
  skipped: number | null;
};

/**
 * An agent of a timeline. `relation`: `incident` for the incident's own agent, otherwise the reason why the agent is
 * in the timeline.
 */
export type TimelineAgent = {
  agent: string;
  agent_id: string;
  relation: "acted_for" | "delegated_to" | "incident" | "same_model" | "same_owner";
  state: string;
};

/** The agents of a timeline, and a page of its rows, newest first. `next` is the cursor of the next page. */
export type TimelineBody = {
  connected: TimelineAgent[];
  next: string | null;
  rows: TimelineRow[];
};

/**
 * A row of a timeline. `index`: the index of the ledger entry. `action`: the entry's action, the finding's detector or
 * the response.
 */
export type TimelineRow = {
  action: string | null;
  agent: string;
  at: number;
  index: number | null;
  kind: "entry" | "finding" | "note" | "response";
  outcome: string | null;
  person: string | null;
  says: string;
};

/** A token response (RFC 6749 section 5.1). */
export type TokenBody = {
  access_token: string;
  authorization_details?: Record<string, unknown>[];
  budgets?: unknown[];
  expires_in: number;
  id_token?: string;
  issued_token_type?: string;
  refresh_token?: string;
  scope: string;
  token_type: "Bearer" | "DPoP";
};

/** A token request: RFC 6749 sections 4.1.3, 4.4 and 6, RFC 8693, RFC 8628 section 3.4, CIBA section 10. */
export type TokenForm = {
  acr_values?: string;
  actor_token?: string;
  actor_token_type?: string;
  audience?: string;
  auth_req_id?: string;
  authorization_details?: string;
  client_assertion?: string;
  client_assertion_type?: string;
  client_id?: string;
  client_secret?: string;
  code?: string;
  code_verifier?: string;
  device_code?: string;
  grant_type: string;
  max_age?: string;
  redirect_uri?: string;
  refresh_token?: string;
  requested_token_type?: string;
  resource?: string;
  scope?: string;
  subject_token?: string;
  subject_token_type?: string;
  task?: string;
};

/** A token to introspect (RFC 7662) or to revoke (RFC 7009). */
export type TokenQueryForm = {
  client_assertion?: string;
  client_assertion_type?: string;
  client_id?: string;
  client_secret?: string;
  token: string;
  token_type_hint?: string;
};

/**
 * The use of one tool by one agent. `tasks`: the number of recent tasks that called the tool. `untrusted`: among
 * these, the number of tasks with values from an untrusted source or the number with values of unknown origin,
 * whichever is larger. `peers`: the number of peers that use the tool.
 */
export type ToolUse = {
  peers: number;
  scope: string;
  tasks: number;
  tool: string;
  untrusted: number;
};

/** The certificate that was tried. `refused` is the reason why the server would not accept it; null if it would. */
export type TriedCertificate = {
  refused: string | null;
  subject: string;
};

/** A federated trust domain and the state of its bundle. `agents`: the agents whose workloads trust the trust domain. */
export type TrustDomainBody = {
  agents: string[];
  authorities: number;
  bundle_url: string;
  endpoint_spiffe_id: string;
  failed: string;
  jwt_keys: number;
  name: string;
  refreshed_at: number | null;
  sequence: string | null;
};

/** A call that could not be decided, with the error. `outcome`: `allow` if the call ran nevertheless, in mode `watch`. */
export type UndecidedRecord = {
  kind: "undecided";
  at: number;
  tool: string;
  outcome: "allow" | "deny";
  token?: string;
  agent?: string;
  digest?: string;
  arguments?: Record<string, unknown> | null;
  reasons?: RecordedReason[];
};

/** A request to unseal. `unseal_key`: the unseal key (X25519, base64url). */
export type UnsealOrder = {
  unseal_key: string;
};

/** The hash of the removed watching set. */
export type UnwatchedBody = {
  hash: string | null;
};

/** The value of a secret for one request, and its expiry in seconds since the epoch (0: none). */
export type UsedSecret = {
  expires_at: number;
  secret: string;
};

/** Claims about a person (OpenID Connect Core 1.0 section 5.3.2). */
export type UserinfoBody = {
  email?: string;
  name?: string;
  preferred_username?: string;
  sub: string;
};

/** The envelope of a response of the Vault API. */
export type VaultEnvelope = {
  auth: unknown;
  data: unknown;
  lease_duration: number;
  lease_id: string;
  renewable: boolean;
  request_id: string;
  warnings: string[] | null;
  wrap_info: unknown;
};

/** An error response of the Vault API. */
export type VaultErrors = {
  errors: string[];
};

export type Verb = {
  name: string;
  properties?: Record<string, unknown> | null;
};

export type Verification = {
  stream_id: string;
  state?: string | null;
};

/** A limit on the amount of data of one data class that tools return, as the guard reports it. */
export type Volume = {
  kind: "volume";
  limit: number;
  data_class: string;
  per_call: number;
  unit?: "bytes" | "records";
  tools?: string[];
};

/** All open approval requests of a task. */
export type WaitingBody = {
  approvals: ApprovalDetail[];
  task: string;
  words: string[];
};

/** The state of the detectors of this server. */
export type WatchBody = {
  agents: number;
  behind: number;
  budget: unknown;
  detectors: string[];
  error: string;
  failing: Record<string, string>;
  narrowing: unknown;
  phase: string;
  pid: number | null;
  position: number;
  starts: number;
  unanswered: unknown[];
};

/** A webhook and the state of its deliveries. Times are seconds since the epoch. */
export type WebhookBody = {
  attempts: number;
  delivered: number;
  delivered_at: number | null;
  events: string[];
  failed: string | null;
  form: string;
  lost: number;
  secret?: string;
  state: "failing" | "gone" | "ok";
  url: string;
  webhook_id: string;
};

/** A workload of an agent: the processes that match its selectors act for the agent. */
export type WorkloadBody = {
  agent: string;
  agent_id: string;
  created_at: number;
  selectors: Record<string, unknown>;
  spiffe_id: string;
  workload_id: string;
};

/**
 * A wrapping key. `active`: the key encrypts new values; `retired`: values of the key are being encrypted again under
 * a newer key. `created_at`: seconds since the epoch.
 */
export type WrappingKeyBody = {
  created_at: number;
  number: number;
  state: string;
};

export interface Operations {
  /** Redirect a browser that opens the address of the server to the console. */
  "GET /": {
    path: {};
    query: {};
    body: undefined;
    answer: undefined;
  };
  /** Return the metadata of this policy decision point (AuthZEN section 9). */
  "GET /.well-known/authzen-configuration": {
    path: {};
    query: {};
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** Return the metadata of this policy decision point (AuthZEN section 9). */
  "GET /.well-known/authzen-configuration/{path}": {
    path: {
      path: string;
    };
    query: {};
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** Return the metadata of the authorization server (RFC 8414). */
  "GET /.well-known/oauth-authorization-server": {
    path: {};
    query: {};
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** Return the metadata of the authorization server (RFC 8414). */
  "GET /.well-known/oauth-authorization-server/{path}": {
    path: {
      path: string;
    };
    query: {};
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** Return the metadata of the administration API, or of userinfo, as a protected resource (RFC 9728). */
  "GET /.well-known/oauth-protected-resource": {
    path: {};
    query: {};
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** Return the metadata of the administration API, or of userinfo, as a protected resource (RFC 9728). */
  "GET /.well-known/oauth-protected-resource/{path}": {
    path: {
      path: string;
    };
    query: {};
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** Return the metadata of the OpenID provider (OpenID Connect Discovery 1.0). */
  "GET /.well-known/openid-configuration": {
    path: {};
    query: {};
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** Return the metadata of the OpenID provider (OpenID Connect Discovery 1.0). */
  "GET /.well-known/openid-configuration/{path}": {
    path: {
      path: string;
    };
    query: {};
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** Return the metadata of this server as a transmitter of signals (SSF 7.1). */
  "GET /.well-known/ssf-configuration": {
    path: {};
    query: {};
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** Return the metadata of this server as a transmitter of signals (SSF 7.1). */
  "GET /.well-known/ssf-configuration/{path}": {
    path: {
      path: string;
    };
    query: {};
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** Evaluate one access request (AuthZEN section 6). */
  "POST /access/v1/evaluation": {
    path: {};
    query: {};
    body: EvaluationRequest;
    answer: EvaluationResponse;
  };
  /** Evaluate several access requests (AuthZEN section 7). */
  "POST /access/v1/evaluations": {
    path: {};
    query: {};
    body: Batch;
    answer: BatchResponse | EvaluationResponse;
  };
  /** Submit an access request for a denied evaluation. */
  "POST /access/v1/requests": {
    path: {};
    query: {};
    body: Submission;
    answer: RequestBody;
  };
  /** Show the state of an access request. */
  "GET /access/v1/requests/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: RequestBody;
  };
  /** Cancel an access request. */
  "POST /access/v1/requests/{id}/cancel": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: RequestBody;
  };
  /** List the actions that the subject may perform on the resource. */
  "POST /access/v1/search/action": {
    path: {};
    query: {};
    body: ActionSearch;
    answer: SearchBody;
  };
  /** List the resources on which the subject may perform the action. */
  "POST /access/v1/search/resource": {
    path: {};
    query: {};
    body: ResourceSearch;
    answer: SearchBody;
  };
  /** List the subjects that may perform the action on the resource. */
  "POST /access/v1/search/subject": {
    path: {};
    query: {};
    body: SubjectSearch;
    answer: SearchBody;
  };
  /** Accept the response of the provider, and connect the account. */
  "GET /accounts/{provider}/callback": {
    path: {
      provider: string;
    };
    query: {
      code?: string;
      state?: string;
      iss?: string;
      error?: string;
    };
    body: undefined;
    answer: undefined;
  };
  /** Return the URLs of the ACME server (RFC 8555 section 7.1.1). */
  "GET /acme/directory": {
    path: {};
    query: {};
    body: undefined;
    answer: Record<string, unknown>;
  };
  /** Return a nonce in the header `Replay-Nonce` (RFC 8555 section 7.2). */
  "GET /acme/new-nonce": {
    path: {};
    query: {};
    body: undefined;
    answer: undefined;
  };
  /** Return the window in which a certificate should be renewed (RFC 9773 section 4). */
  "GET /acme/renewal-info/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: RenewalBody;
  };
  /** Redirect to the console's page of the approval request that the link of an alert names. */
  "GET /alerts/{token}": {
    path: {
      token: string;
    };
    query: {};
    body: undefined;
    answer: undefined;
  };
  /** Add a provider at which persons can connect accounts. */
  "POST /api/v1/account-providers": {
    path: {};
    query: {};
    body: NewAccountProvider;
    answer: AccountProviderBody;
  };
  /** List the account providers by name. */
  "GET /api/v1/account-providers": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      providers: (AccountProviderBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show an account provider. */
  "GET /api/v1/account-providers/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: AccountProviderBody;
  };
  /** Change the client secret, the scopes or the roles of an account provider. */
  "PATCH /api/v1/account-providers/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: AccountProviderChanges;
    answer: AccountProviderBody;
  };
  /** Remove an account provider. All its connected accounts end, and their tokens are revoked at the provider. */
  "DELETE /api/v1/account-providers/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Create a MAC key, with which an ACME client creates its account. */
  "POST /api/v1/acme/keys": {
    path: {};
    query: {};
    body: NewAcmeKeyRequest;
    answer: IssuedAcmeKey;
  };
  /** List the MAC keys with their accounts, including used and revoked keys. */
  "GET /api/v1/acme/keys": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      keys: (AcmeKeyBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Revoke a MAC key, and deactivate the account that the key created. */
  "POST /api/v1/acme/keys/{kid}/revoke": {
    path: {
      kid: string;
    };
    query: {};
    body: undefined;
    answer: AcmeKeyBody;
  };
  /** Show the agents with the highest risk scores, and the numbers of open incidents, stops and entries. */
  "GET /api/v1/activity": {
    path: {};
    query: {};
    body: undefined;
    answer: ActivityBody;
  };
  /** List agents by name, by registration or by risk score, with the score and the last use. */
  "GET /api/v1/agent-table": {
    path: {};
    query: {
      owner?: string;
      state?: AgentState;
      kind?: Kind;
      risk_tier?: RiskTier;
      segment?: string;
      text?: string;
      unused?: number;
      sort?: string;
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      agents: (AgentTableRow | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Count the agents by state, kind, risk tier and segment. The numbers are at most five seconds old. */
  "GET /api/v1/agent-table/counts": {
    path: {};
    query: {};
    body: undefined;
    answer: AgentCountsBody;
  };
  /** Return all agents of the table as CSV (RFC 4180), in the order of `sort`. */
  "GET /api/v1/agent-table/csv": {
    path: {};
    query: {
      owner?: string;
      state?: AgentState;
      kind?: Kind;
      risk_tier?: RiskTier;
      segment?: string;
      text?: string;
      unused?: number;
      sort?: string;
    };
    body: undefined;
    answer: string;
  };
  /** Register an agent. With a `jwk` the agent is active immediately. */
  "POST /api/v1/agents": {
    path: {};
    query: {};
    body: NewAgent;
    answer: AgentDetail;
  };
  /** List agents in the order of their registration; each query parameter filters the list. */
  "GET /api/v1/agents": {
    path: {};
    query: {
      owner?: string;
      state?: AgentState;
      kind?: Kind;
      risk_tier?: RiskTier;
      segment?: string;
      text?: string;
      unused?: number;
      last_use?: "false" | "true";
      total?: "false" | "true";
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      agents: (AgentBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Register a workload of an agent. Processes that match all its selectors get the agent's SVIDs. */
  "POST /api/v1/agents/{id}/workloads": {
    path: {
      id: string;
    };
    query: {};
    body: Selectors;
    answer: WorkloadBody;
  };
  /** Show an agent with its newest keys. */
  "GET /api/v1/agents/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: AgentDetail;
  };
  /** Change the owner, deputy, segment, scopes, depth or end of an agent, or whether it states its person's words. */
  "PATCH /api/v1/agents/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: AgentChange;
    answer: AgentDetail;
  };
  /** Create an access key for the API of AWS Secrets Manager. Only this response contains the secret key. */
  "POST /api/v1/agents/{name}/access-keys": {
    path: {
      name: string;
    };
    query: {};
    body: AccessKeyRequest;
    answer: NewAccessKeyBody;
  };
  /** List the access keys of an agent. */
  "GET /api/v1/agents/{name}/access-keys": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: AccessKeysBody;
  };
  /** Revoke an access key. The next request with the key is refused. */
  "DELETE /api/v1/agents/{name}/access-keys/{access_key_id}": {
    path: {
      name: string;
      access_key_id: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** List the resources at which an agent may use bearer tokens. */
  "GET /api/v1/agents/{name}/bearer": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: BearerBody;
  };
  /** Allow an agent to use bearer tokens at a resource; the guards of the resource then accept these tokens. */
  "PUT /api/v1/agents/{name}/bearer/{resource}": {
    path: {
      name: string;
      resource: string;
    };
    query: {};
    body: undefined;
    answer: BearerBody;
  };
  /** Forbid an agent to use bearer tokens at a resource, and revoke its bearer tokens for the resource. */
  "DELETE /api/v1/agents/{name}/bearer/{resource}": {
    path: {
      name: string;
      resource: string;
    };
    query: {};
    body: undefined;
    answer: BearerBody;
  };
  /** Show how an agent uses its scopes and tools, beside its peers, and how often the agent acts on each day. */
  "GET /api/v1/agents/{name}/behaviour": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: BehaviourBody;
  };
  /** Set the daily budgets of an agent. Units that were used today still count. */
  "PUT /api/v1/agents/{name}/budget": {
    path: {
      name: string;
    };
    query: {};
    body: Allowance;
    answer: AllowanceBody;
  };
  /** Show the daily budgets of an agent, with the units that are left today. */
  "GET /api/v1/agents/{name}/budget": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: AllowanceBody;
  };
  /** Show the redirect URIs of an agent. */
  "GET /api/v1/agents/{name}/client": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: ClientBody;
  };
  /** Set the redirect URIs of an agent, so that the agent can send people to the authorization endpoint. */
  "PUT /api/v1/agents/{name}/client": {
    path: {
      name: string;
    };
    query: {};
    body: AgentClient;
    answer: ClientBody;
  };
  /** Remove the redirect URIs of an agent; its authorization requests are refused from then on. */
  "DELETE /api/v1/agents/{name}/client": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Decommission an agent. Its tasks and the tasks that it delegated end as cancelled. */
  "POST /api/v1/agents/{name}/decommission": {
    path: {
      name: string;
    };
    query: {};
    body: StateChange;
    answer: MovedAgent;
  };
  /** Show the scopes that an agent may request for a limited time. */
  "GET /api/v1/agents/{name}/eligible": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: EligibleBody;
  };
  /** Set the scopes that an agent may request for a limited time. */
  "PUT /api/v1/agents/{name}/eligible": {
    path: {
      name: string;
    };
    query: {};
    body: Eligible;
    answer: EligibleBody;
  };
  /** List the live holdings of an agent, and count the holdings that a stop of the agent would end. */
  "GET /api/v1/agents/{name}/holdings": {
    path: {
      name: string;
    };
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: HoldingsBody;
  };
  /** Create a join token, with which a workload registers the first key of a pending agent. */
  "POST /api/v1/agents/{name}/join-token": {
    path: {
      name: string;
    };
    query: {};
    body: NewJoinToken;
    answer: JoinTokenBody;
  };
  /** List the keys of an agent, the oldest first, including revoked keys. */
  "GET /api/v1/agents/{name}/keys": {
    path: {
      name: string;
    };
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      keys: (AgentKeyBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Register a key; the first key makes a pending agent active. */
  "POST /api/v1/agents/{name}/keys": {
    path: {
      name: string;
    };
    query: {};
    body: NewAgentKey;
    answer: AgentKeyBody;
  };
  /** Register a key; the other keys end after the overlap. */
  "POST /api/v1/agents/{name}/keys/rotate": {
    path: {
      name: string;
    };
    query: {};
    body: AgentKeyRotation;
    answer: AgentKeyBody;
  };
  /** Revoke a key and everything that was obtained with it. */
  "DELETE /api/v1/agents/{name}/keys/{kid}": {
    path: {
      name: string;
      kid: string;
    };
    query: {};
    body: undefined;
    answer: RevokedBody;
  };
  /** Show the method by which an agent authenticates by certificate. */
  "GET /api/v1/agents/{name}/mutual-tls": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: MutualTlsBody;
  };
  /** Let an agent authenticate by certificate (RFC 8705), and replace earlier settings. */
  "PUT /api/v1/agents/{name}/mutual-tls": {
    path: {
      name: string;
    };
    query: {};
    body: MutualTls;
    answer: MutualTlsBody;
  };
  /** Stop an agent from authenticating by certificate, and revoke its tokens. */
  "DELETE /api/v1/agents/{name}/mutual-tls": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** List policies that would permit calls of an agent which people have always approved, each with its approvals. */
  "GET /api/v1/agents/{name}/proposals": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: ProposalsBody;
  };
  /** Quarantine an agent. */
  "POST /api/v1/agents/{name}/quarantine": {
    path: {
      name: string;
    };
    query: {};
    body: StateChange;
    answer: MovedAgent;
  };
  /** Release an agent. */
  "POST /api/v1/agents/{name}/release": {
    path: {
      name: string;
    };
    query: {};
    body: StateChange;
    answer: MovedAgent;
  };
  /** Resume an agent. */
  "POST /api/v1/agents/{name}/resume": {
    path: {
      name: string;
    };
    query: {};
    body: StateChange;
    answer: MovedAgent;
  };
  /** Create a client secret for an agent. */
  "POST /api/v1/agents/{name}/secrets": {
    path: {
      name: string;
    };
    query: {};
    body: SecretRequest;
    answer: ClientSecretBody;
  };
  /** List the client secrets of an agent by id and expiry. */
  "GET /api/v1/agents/{name}/secrets": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: ClientSecretsBody;
  };
  /** Revoke a client secret, all bearer tokens of its agent, and the tokens that the agent got with a secret. */
  "DELETE /api/v1/agents/{name}/secrets/{id}": {
    path: {
      name: string;
      id: string;
    };
    query: {};
    body: undefined;
    answer: ClientSecretsBody;
  };
  /** Suspend an agent. */
  "POST /api/v1/agents/{name}/suspend": {
    path: {
      name: string;
    };
    query: {};
    body: StateChange;
    answer: MovedAgent;
  };
  /** List approval requests, the newest first. Agents see only their own. */
  "GET /api/v1/approvals": {
    path: {};
    query: {
      state?: "all" | "open";
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      approvals: (ApprovalBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Approve and deny several approval requests. */
  "POST /api/v1/approvals/answers": {
    path: {};
    query: {};
    body: ApprovalAnswers;
    answer: AnswersBody;
  };
  /** Show an approval request. */
  "GET /api/v1/approvals/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: ApprovalDetail | ApprovalBody;
  };
  /** Approve an approval request, with a reason. */
  "POST /api/v1/approvals/{id}/approve": {
    path: {
      id: string;
    };
    query: {};
    body: ApprovalAnswer;
    answer: ApprovalBody;
  };
  /** Deny an approval request, with a reason. */
  "POST /api/v1/approvals/{id}/deny": {
    path: {
      id: string;
    };
    query: {};
    body: ApprovalAnswer;
    answer: ApprovalBody;
  };
  /** Search the ledger, newest entry first. */
  "GET /api/v1/audit": {
    path: {};
    query: {
      action?: string;
      agent?: string;
      data_class?: string;
      outcome?: string;
      person?: string;
      resource?: string;
      task?: string;
      about?: string;
      since?: number;
      until?: number;
      after?: number;
      before?: number;
      reads?: string;
      total?: "false" | "true";
      limit?: number;
    };
    body: undefined;
    answer: {
      entries: (EntryBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** List the checkpoints that the server stores once an hour, the largest first. */
  "GET /api/v1/audit/checkpoints": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      checkpoints: (KeptCheckpointBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Return the receipts of the entries that match a search, newest entry first, all under the same checkpoint. */
  "GET /api/v1/audit/receipts": {
    path: {};
    query: {
      action?: string;
      agent?: string;
      data_class?: string;
      outcome?: string;
      person?: string;
      resource?: string;
      task?: string;
      about?: string;
      since?: number;
      until?: number;
      before?: number;
      reads?: string;
      limit?: number;
    };
    body: undefined;
    answer: ReceiptsBody;
  };
  /** Show one entry of the ledger. */
  "GET /api/v1/audit/{index}": {
    path: {
      index: string;
    };
    query: {};
    body: undefined;
    answer: EntryBody;
  };
  /** Return a receipt of an entry: the bytes of the entry with a C2SP tlog-proof. */
  "GET /api/v1/audit/{index}/proof": {
    path: {
      index: string;
    };
    query: {};
    body: undefined;
    answer: ReceiptBody;
  };
  /** List the authorities, the oldest first: roots, intermediates, and their OCSP responders. */
  "GET /api/v1/authorities": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      authorities: (AuthorityBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Create the intermediate, and the root if there is none. */
  "POST /api/v1/authorities": {
    path: {};
    query: {};
    body: NewAuthority;
    answer: AuthorityBody;
  };
  /** Install the certificate of the pending intermediate, with the certificates above, up to the root. */
  "POST /api/v1/authorities/import": {
    path: {};
    query: {};
    body: Import;
    answer: AuthorityBody;
  };
  /** Create a pending intermediate, which an external root must certify, and return its certificate request. */
  "POST /api/v1/authorities/request": {
    path: {};
    query: {};
    body: NewImport;
    answer: ImportBody;
  };
  /** Replace the intermediate, or publish a new root that replaces the active root after the overlap. */
  "POST /api/v1/authorities/rotate": {
    path: {};
    query: {};
    body: Rotation;
    answer: AuthorityBody;
  };
  /** Revoke an intermediate and all its certificates. */
  "POST /api/v1/authorities/{id}/revoke": {
    path: {
      id: string;
    };
    query: {};
    body: Revocation;
    answer: AuthorityRevocationBody;
  };
  /** List certificates, the newest first. */
  "GET /api/v1/certificates": {
    path: {};
    query: {
      holder?: string;
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      certificates: (CertificateBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Issue a certificate for the key that signed the request, if the profile and the policies permit. */
  "POST /api/v1/certificates": {
    path: {};
    query: {};
    body: NewCertificate;
    answer: CertificateDetail;
  };
  /** Issue certificates for up to 100 requests in one commit, with a decision for each request. */
  "POST /api/v1/certificates/batch": {
    path: {};
    query: {};
    body: CertificateBatch;
    answer: BatchBody;
  };
  /** Show a certificate with its chain. */
  "GET /api/v1/certificates/{serial}": {
    path: {
      serial: string;
    };
    query: {};
    body: undefined;
    answer: CertificateDetail;
  };
  /** Revoke a certificate. With the reason `keyCompromise`, its key is never certified again. */
  "POST /api/v1/certificates/{serial}/revoke": {
    path: {
      serial: string;
    };
    query: {};
    body: Revocation;
    answer: CertificateBody;
  };
  /** Create an initial access token. A client with this token can register even if registration is closed. */
  "POST /api/v1/client-invitations": {
    path: {};
    query: {};
    body: Invitation;
    answer: InvitationBody;
  };
  /** List the OAuth clients, including agents. The parameter `state` selects clients in one state. */
  "GET /api/v1/clients": {
    path: {};
    query: {
      state?: ClientState;
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      clients: (RegisteredClientBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show an OAuth client by its record id. */
  "GET /api/v1/clients/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: RegisteredClientBody;
  };
  /** Delete a client, and end the consents to it with their tokens. */
  "DELETE /api/v1/clients/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Approve a client that waits for approval, or let a stopped client act again. */
  "POST /api/v1/clients/{id}/approve": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: RegisteredClientBody;
  };
  /** Stop a client, and end the consents to it with their tokens. */
  "POST /api/v1/clients/{id}/stop": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: RegisteredClientBody;
  };
  /** Show server time, the wall clock, their difference, and whether the server gives out access (`is_granting`). */
  "GET /api/v1/clock": {
    path: {};
    query: {};
    body: undefined;
    answer: ClockBody;
  };
  /** Confirm, after a jump, that the wall clock is right. */
  "POST /api/v1/clock/accept": {
    path: {};
    query: {};
    body: Confirmation;
    answer: ClockBody;
  };
  /** List the connected accounts of all persons, or of one person. */
  "GET /api/v1/connected-accounts": {
    path: {};
    query: {
      limit?: number;
      after?: string;
      person?: string;
    };
    body: undefined;
    answer: {
      accounts: (ConnectedAccountBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** End a connected account. Its access tokens end now, and its refresh token is then revoked at the provider. */
  "POST /api/v1/connected-accounts/{account}/revoke": {
    path: {
      account: string;
    };
    query: {};
    body: AccountEnd;
    answer: EmptyBody;
  };
  /** List the consents that were not withdrawn, of one person if requested. */
  "GET /api/v1/consents": {
    path: {};
    query: {
      limit?: number;
      after?: string;
      person?: string;
    };
    body: undefined;
    answer: {
      consents: (ConsentBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show a consent. */
  "GET /api/v1/consents/{consent}": {
    path: {
      consent: string;
    };
    query: {};
    body: undefined;
    answer: ConsentBody;
  };
  /** Withdraw a consent: its tokens, refresh tokens and tasks end at once. */
  "POST /api/v1/consents/{consent}/revoke": {
    path: {
      consent: string;
    };
    query: {};
    body: undefined;
    answer: ConsentBody;
  };
  /** Evaluate one access request (AuthZEN section 6). */
  "POST /api/v1/decide": {
    path: {};
    query: {};
    body: EvaluationRequest;
    answer: EvaluationResponse;
  };
  /** Run every experiment (check of a part of the server), in order. */
  "GET /api/v1/doctor": {
    path: {};
    query: {
      deep?: "false" | "true";
    };
    body: undefined;
    answer: DoctorBody;
  };
  /** Request additional scopes for a limited time, as the agent that needs them. */
  "POST /api/v1/elevations": {
    path: {};
    query: {};
    body: ElevationRequest;
    answer: ApprovalBody;
  };
  /** List elevations, the newest first. An agent sees only its own; callers that may read everything see all. */
  "GET /api/v1/elevations": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      elevations: (ElevationBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** List the connected guards of all servers of the database. */
  "GET /api/v1/feeds": {
    path: {};
    query: {
      seq?: number;
      since?: number;
      wait_ms?: number;
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      guards: (GuardBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** List the resources whose guards reported within a week, and of which none is connected. */
  "GET /api/v1/feeds/missing": {
    path: {};
    query: {};
    body: undefined;
    answer: MissingGuardsBody;
  };
  /** Send a test message to every connected guard, and wait until the message is in force at each guard, at most 3 s. */
  "POST /api/v1/feeds/test": {
    path: {};
    query: {};
    body: undefined;
    answer: TestedGuards;
  };
  /** List findings, newest first: of all agents, or with `agent` of one agent. */
  "GET /api/v1/findings": {
    path: {};
    query: {
      agent?: string;
      state?: "all" | "open";
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      findings: (FindingBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Explain a finding: the meaning of its detector, and the ledger entries on which it rests. */
  "GET /api/v1/findings/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: FindingDetail;
  };
  /** List incidents, the newest first. */
  "GET /api/v1/incidents": {
    path: {};
    query: {
      state?: "all" | "open";
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      incidents: (IncidentBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show an incident with its findings, responses, notes and blast radius. */
  "GET /api/v1/incidents/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: IncidentDetail;
  };
  /** Decommission the agent of an incident, and close the incident. */
  "POST /api/v1/incidents/{id}/decommission": {
    path: {
      id: string;
    };
    query: {};
    body: IncidentAnswer;
    answer: AnsweredIncident;
  };
  /** Restrict the agent of an incident to reading for some hours, and close the incident. */
  "POST /api/v1/incidents/{id}/narrow": {
    path: {
      id: string;
    };
    query: {};
    body: IncidentAnswer;
    answer: AnsweredIncident;
  };
  /** Add a note to an open or closed incident. */
  "POST /api/v1/incidents/{id}/notes": {
    path: {
      id: string;
    };
    query: {};
    body: NewIncidentNote;
    answer: IncidentNoteBody;
  };
  /** Release the agent of an incident, and close the incident. */
  "POST /api/v1/incidents/{id}/release": {
    path: {
      id: string;
    };
    query: {};
    body: IncidentAnswer;
    answer: AnsweredIncident;
  };
  /** Rotate the secrets that the incident's agent read, and revoke the agent's leases. */
  "POST /api/v1/incidents/{id}/rotate-secrets": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: RotatedSecrets;
  };
  /** Take an incident, in order to work on it. */
  "POST /api/v1/incidents/{id}/take": {
    path: {
      id: string;
    };
    query: {};
    body: IncidentAnswer;
    answer: AnsweredIncident;
  };
  /** Show a page of the timeline of an incident, newest first. */
  "GET /api/v1/incidents/{id}/timeline": {
    path: {
      id: string;
    };
    query: {
      agent?: string;
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: TimelineBody;
  };
  /** Trust the signals of an issuer. For a stream by push, the response contains the secret that the issuer must send. */
  "POST /api/v1/issuers": {
    path: {};
    query: {};
    body: NewIssuer;
    answer: IssuerBody;
  };
  /** List the trusted issuers and the state of their streams. */
  "GET /api/v1/issuers": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      issuers: (IssuerBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Remove an issuer, and end the stream at the issuer if possible. */
  "DELETE /api/v1/issuers/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: DistrustedBody;
  };
  /** List the `sub`s of an issuer that are linked to persons. */
  "GET /api/v1/issuers/{id}/links": {
    path: {
      id: string;
    };
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      links: (LinkBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Link a `sub` of an issuer to a person, so that signals about this `sub` concern the person. */
  "POST /api/v1/issuers/{id}/links": {
    path: {
      id: string;
    };
    query: {};
    body: Link;
    answer: LinkBody;
  };
  /** Remove the link between a `sub` of an issuer and a person. */
  "POST /api/v1/issuers/{id}/unlink": {
    path: {
      id: string;
    };
    query: {};
    body: Link;
    answer: EmptyBody;
  };
  /** Request a verification event from the issuer (SSF 8.1.4). When the event arrives, `verified_at` changes. */
  "POST /api/v1/issuers/{id}/verify": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Replace a signing key with a new key. */
  "POST /api/v1/keys/rotate": {
    path: {};
    query: {};
    body: SigningKeyRotation;
    answer: SigningKeyBody;
  };
  /** Stop an agent, a task, an owner's agents, a resource, a segment, a model, or everything. */
  "POST /api/v1/kill": {
    path: {};
    query: {};
    body: Kill;
    answer: KillBody;
  };
  /** List the stops that are in force, with their reasons. */
  "GET /api/v1/kill": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      stops: (StopBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Lift a stop: guards accept the stopped tokens again, unless the tokens have ended meanwhile. */
  "POST /api/v1/kill/lift": {
    path: {};
    query: {};
    body: Kill;
    answer: LiftBody;
  };
  /** List leases. */
  "GET /api/v1/leases": {
    path: {};
    query: {
      limit?: number;
      after?: string;
      stuck?: string;
    };
    body: undefined;
    answer: {
      leases: (LeaseBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Revoke a lease: the removal of its account is due now, and is repeated until an attempt succeeds. */
  "POST /api/v1/leases/revoke": {
    path: {};
    query: {};
    body: LeaseToRevoke;
    answer: EmptyBody;
  };
  /** Let persons log in by an OpenID provider or a SAML identity provider. */
  "POST /api/v1/login-providers": {
    path: {};
    query: {};
    body: NewProvider;
    answer: ProviderBody;
  };
  /** List the login providers. */
  "GET /api/v1/login-providers": {
    path: {};
    query: {};
    body: undefined;
    answer: ProvidersBody;
  };
  /** Show a login provider. */
  "GET /api/v1/login-providers/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: ProviderBody;
  };
  /** Change the settings of a login provider. Changed rules take effect for a person at the person's next login. */
  "PATCH /api/v1/login-providers/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: ProviderChanges;
    answer: ProviderBody;
  };
  /** Remove a login provider. Logins by it are refused, its sessions end, and the roles that its rules gave end. */
  "DELETE /api/v1/login-providers/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** List the accounts at a provider that are linked to persons. */
  "GET /api/v1/login-providers/{name}/accounts": {
    path: {
      name: string;
    };
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      accounts: (AccountLink | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Link an account at a provider to a person. */
  "POST /api/v1/login-providers/{name}/accounts": {
    path: {
      name: string;
    };
    query: {};
    body: NewLink;
    answer: AccountLink;
  };
  /** Remove the link between an account at a provider and its person. */
  "POST /api/v1/login-providers/{name}/accounts/unlink": {
    path: {
      name: string;
    };
    query: {};
    body: OldLink;
    answer: EmptyBody;
  };
  /** Show the state of the server at a glance, and at most three useful next steps. */
  "GET /api/v1/overview": {
    path: {};
    query: {};
    body: undefined;
    answer: OverviewBody;
  };
  /** Register a static PEP, and return an API key for the AuthZEN endpoints. */
  "POST /api/v1/peps": {
    path: {};
    query: {};
    body: NewPep;
    answer: IssuedPepKey;
  };
  /** List the static PEPs, including revoked PEPs. */
  "GET /api/v1/peps": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      peps: (PepBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show a static PEP and its API keys without their secrets. */
  "GET /api/v1/peps/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: PepBody;
  };
  /** Revoke a PEP and its API keys. All servers of the database refuse them at once. */
  "POST /api/v1/peps/{name}/revoke": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: PepBody;
  };
  /** Issue a new API key of a PEP. The older key expires after the overlap. */
  "POST /api/v1/peps/{name}/rotate": {
    path: {
      name: string;
    };
    query: {};
    body: PepKeyRotation;
    answer: IssuedPepKey;
  };
  /** Register a person, with a public key if there is one. */
  "POST /api/v1/persons": {
    path: {};
    query: {};
    body: NewPerson;
    answer: PersonBody;
  };
  /** List the persons. */
  "GET /api/v1/persons": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      persons: (PersonBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show a person. */
  "GET /api/v1/persons/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: PersonBody;
  };
  /** Set the deputy, who becomes the owner of the person's agents when this person leaves. */
  "PUT /api/v1/persons/{name}/deputy": {
    path: {
      name: string;
    };
    query: {};
    body: Deputy;
    answer: PersonBody;
  };
  /** Create a setup link, with which a person registers a passkey or a password. */
  "POST /api/v1/persons/{name}/invite": {
    path: {
      name: string;
    };
    query: {};
    body: NewSetupLink;
    answer: SetupLinkBody;
  };
  /** List the keys of a person, the oldest first, including revoked keys. */
  "GET /api/v1/persons/{name}/keys": {
    path: {
      name: string;
    };
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      keys: (PersonKeyBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Register a key with which the person answers approval requests. */
  "POST /api/v1/persons/{name}/keys": {
    path: {
      name: string;
    };
    query: {};
    body: NewPersonKey;
    answer: PersonKeyBody;
  };
  /** Revoke a key of a person, every token of the person, and every unused approval that was signed with the key. */
  "DELETE /api/v1/persons/{name}/keys/{kid}": {
    path: {
      name: string;
      kid: string;
    };
    query: {};
    body: undefined;
    answer: RevokedBody;
  };
  /** Show the ways by which a person signs in with a local account. */
  "GET /api/v1/persons/{name}/login": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: LoginBody;
  };
  /** Remove every credential and setup link of a person, and end every session. */
  "DELETE /api/v1/persons/{name}/login": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: EndedSessionsBody;
  };
  /** Resume a suspended person, who can then sign in again. Ended sessions and consents are not restored. */
  "POST /api/v1/persons/{name}/resume": {
    path: {
      name: string;
    };
    query: {};
    body: Suspension;
    answer: PersonStateBody;
  };
  /** Make a person active again who has left, so that the person can own agents. */
  "POST /api/v1/persons/{name}/return": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: PersonBody;
  };
  /** List the live sessions of a person. */
  "GET /api/v1/persons/{name}/sessions": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: SessionsBody;
  };
  /** End every session of a person. */
  "DELETE /api/v1/persons/{name}/sessions": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: EndedSessionsBody;
  };
  /** End one session of a person. */
  "DELETE /api/v1/persons/{name}/sessions/{session}": {
    path: {
      name: string;
      session: string;
    };
    query: {};
    body: undefined;
    answer: EndedSessionsBody;
  };
  /** Suspend a person: sessions, consents and tasks on behalf of the person end, and no login is accepted. */
  "POST /api/v1/persons/{name}/suspend": {
    path: {
      name: string;
    };
    query: {};
    body: Suspension;
    answer: PersonStateBody;
  };
  /** Validate, test and activate a policy set; with `dry_run` nothing is stored. */
  "POST /api/v1/policies": {
    path: {};
    query: {
      dry_run?: "false" | "true";
      lock_out?: "false" | "true";
      watch?: "false" | "true";
      whatif?: string;
      max_changes?: number;
    };
    body: NewSet;
    answer: PolicySetBody;
  };
  /** Validate, test and activate a policy set; with `dry_run` nothing is stored. */
  "PUT /api/v1/policies": {
    path: {};
    query: {
      dry_run?: "false" | "true";
      lock_out?: "false" | "true";
      watch?: "false" | "true";
      whatif?: string;
      max_changes?: number;
    };
    body: NewSet;
    answer: PolicySetBody;
  };
  /** List the policy sets, newest first. */
  "GET /api/v1/policies": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      policies: (PolicySetBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show the schema that every policy set extends. */
  "GET /api/v1/policies/schema": {
    path: {};
    query: {};
    body: undefined;
    answer: SchemaBody;
  };
  /** Remove the watching set. */
  "DELETE /api/v1/policies/watching": {
    path: {};
    query: {};
    body: undefined;
    answer: UnwatchedBody;
  };
  /** Show a policy set with its files. */
  "GET /api/v1/policies/{hash}": {
    path: {
      hash: string;
    };
    query: {};
    body: undefined;
    answer: PolicySetDetail;
  };
  /** Activate a stored policy set. */
  "POST /api/v1/policies/{hash}/activate": {
    path: {
      hash: string;
    };
    query: {
      dry_run?: "false" | "true";
      lock_out?: "false" | "true";
    };
    body: Activation;
    answer: PolicySetBody | ActivationPlan;
  };
  /** Show the server's key, with which a browser subscribes, and the subscribed browsers of the calling person. */
  "GET /api/v1/push": {
    path: {};
    query: {};
    body: undefined;
    answer: PushBody;
  };
  /** Subscribe a browser of the calling person to messages about new approval requests that the person may answer. */
  "POST /api/v1/push": {
    path: {};
    query: {};
    body: NewSubscription;
    answer: SubscriptionBody;
  };
  /** Stop the messages to a browser of the calling person. */
  "DELETE /api/v1/push/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Register a protected resource, optionally with the key of its guard and a catalogue. */
  "POST /api/v1/resources": {
    path: {};
    query: {};
    body: NewResource;
    answer: ResourceBody;
  };
  /** List the protected resources. */
  "GET /api/v1/resources": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      resources: (ResourceBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show a resource with its catalogue. */
  "GET /api/v1/resources/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: ResourceDetail;
  };
  /** List the classes of registration whose clients may use bearer tokens at a resource. */
  "GET /api/v1/resources/{name}/bearer": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: BearerClassesBody;
  };
  /** Allow all clients of a class of registration to use bearer tokens at a resource. */
  "PUT /api/v1/resources/{name}/bearer/{registration}": {
    path: {
      name: string;
      registration: string;
    };
    query: {};
    body: undefined;
    answer: BearerClassesBody;
  };
  /** Forbid a class of registration to use bearer tokens at a resource, and revoke the bearer tokens there. */
  "DELETE /api/v1/resources/{name}/bearer/{registration}": {
    path: {
      name: string;
      registration: string;
    };
    query: {};
    body: undefined;
    answer: BearerClassesBody;
  };
  /** Replace the catalogue of a resource. */
  "PUT /api/v1/resources/{name}/catalogue": {
    path: {
      name: string;
    };
    query: {};
    body: NewCatalogue;
    answer: ResourceBody;
  };
  /** Set the data classes that every tool of the resource handles, in addition to the tool's own. */
  "PUT /api/v1/resources/{name}/data-classes": {
    path: {
      name: string;
    };
    query: {};
    body: NewClasses;
    answer: ResourceClasses;
  };
  /** List the fields of tool results from which guards saw the arguments of a resource's tools take values. */
  "GET /api/v1/resources/{name}/flows": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: FlowsBody;
  };
  /** Replace the key of a resource's guard. The previous key is refused immediately. */
  "PUT /api/v1/resources/{name}/key": {
    path: {
      name: string;
    };
    query: {};
    body: NewResourceKey;
    answer: ResourceBody;
  };
  /** Set the mode of a resource: `enforce`, or `watch`, in which decisions are recorded and not enforced. */
  "PUT /api/v1/resources/{name}/mode": {
    path: {
      name: string;
    };
    query: {};
    body: NewMode;
    answer: ResourceBody;
  };
  /** Create a client secret with which a resource, such as one without a guard, introspects the tokens that it gets. */
  "POST /api/v1/resources/{name}/secrets": {
    path: {
      name: string;
    };
    query: {};
    body: SecretRequest;
    answer: ClientSecretBody;
  };
  /** List the client secrets of a resource by id and expiry. */
  "GET /api/v1/resources/{name}/secrets": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: ClientSecretsBody;
  };
  /** Revoke a client secret of a resource. */
  "DELETE /api/v1/resources/{name}/secrets/{id}": {
    path: {
      name: string;
      id: string;
    };
    query: {};
    body: undefined;
    answer: ClientSecretsBody;
  };
  /** Revoke an agent, a task, a token, a key or an owner, with everything derived from it. */
  "POST /api/v1/revoke": {
    path: {};
    query: {};
    body: AccessRevocation;
    answer: RevocationBody;
  };
  /** List the roles of persons and teams. */
  "GET /api/v1/roles": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      roles: (RoleBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Grant a role to a person or team. A role exists if an active policy names it. */
  "POST /api/v1/roles": {
    path: {};
    query: {};
    body: NewRole;
    answer: EmptyBody;
  };
  /** List the roles that the active policies name. */
  "GET /api/v1/roles/names": {
    path: {};
    query: {};
    body: undefined;
    answer: RoleNamesBody;
  };
  /** Revoke a role of a person or team. */
  "DELETE /api/v1/roles/{subject}/{role}": {
    path: {
      subject: string;
      role: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** List the names in a folder of secrets. */
  "GET /api/v1/secrets": {
    path: {};
    query: {
      folder?: string;
    };
    body: undefined;
    answer: SecretNamesBody;
  };
  /** Configure an existing store of secrets as a back end, or replace its configuration. */
  "POST /api/v1/secrets/backends": {
    path: {};
    query: {};
    body: NewBackend;
    answer: BackendBody;
  };
  /** List the back ends. */
  "GET /api/v1/secrets/backends": {
    path: {};
    query: {};
    body: undefined;
    answer: BackendsBody;
  };
  /** Remove a back end. Its secrets stay at the back end. */
  "DELETE /api/v1/secrets/backends/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Mark a secret as a canary, or as an ordinary secret: an agent that reads a canary is quarantined at once. */
  "POST /api/v1/secrets/canary": {
    path: {};
    query: {};
    body: CanaryMark;
    answer: undefined;
  };
  /** Delete the current version of a secret, or the secret with all its versions. */
  "POST /api/v1/secrets/delete": {
    path: {};
    query: {};
    body: SecretDeletion;
    answer: undefined;
  };
  /** Create the destination of a secret: the origin that receives the secret, and its place in the requests. */
  "POST /api/v1/secrets/destinations": {
    path: {};
    query: {};
    body: NewDestination;
    answer: DestinationBody;
  };
  /** List the destinations of secrets. */
  "GET /api/v1/secrets/destinations": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      destinations: (DestinationBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Delete a destination: proxies put its secret into no further request. */
  "DELETE /api/v1/secrets/destinations/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Return the value of a secret. */
  "POST /api/v1/secrets/get": {
    path: {};
    query: {};
    body: SecretReading;
    answer: SecretValueBody;
  };
  /** Store a value as a new version of a secret. */
  "POST /api/v1/secrets/put": {
    path: {};
    query: {};
    body: NewSecretValue;
    answer: SecretVersionBody;
  };
  /** Rotate a secret now. If the service does not accept the new value, the present value stays. */
  "POST /api/v1/secrets/rotate": {
    path: {};
    query: {};
    body: RotationPath;
    answer: RotationBody;
  };
  /** Create a new wrapping key. Afterwards, each value is encrypted again with a new data key, while requests run. */
  "POST /api/v1/secrets/rotate-keys": {
    path: {};
    query: {};
    body: undefined;
    answer: SealBody;
  };
  /** Configure the rotation of one member of a secret: the schedule, and the service that accepts new values. */
  "POST /api/v1/secrets/rotations": {
    path: {};
    query: {};
    body: NewRotation;
    answer: NewRotationBody;
  };
  /** List the rotations of secrets, with the times of their last and next calls. */
  "GET /api/v1/secrets/rotations": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      rotations: (RotationBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Remove the rotation of a secret. The secret stays. */
  "POST /api/v1/secrets/rotations/delete": {
    path: {};
    query: {};
    body: RotationPath;
    answer: EmptyBody;
  };
  /** Show whether the secrets are sealed, and list the wrapping keys. */
  "GET /api/v1/secrets/seal": {
    path: {};
    query: {};
    body: undefined;
    answer: SealBody;
  };
  /** Seal the secrets: no value can be read or written until an unseal with the unseal key. */
  "POST /api/v1/secrets/seal": {
    path: {};
    query: {};
    body: SealOrder;
    answer: SealBody;
  };
  /** Copy values from a back end to the key-value store, or from the key-value store to a back end. */
  "POST /api/v1/secrets/sync": {
    path: {};
    query: {};
    body: SyncOrder;
    answer: SyncBody;
  };
  /** Unseal the secrets with the unseal key. */
  "POST /api/v1/secrets/unseal": {
    path: {};
    query: {};
    body: UnsealOrder;
    answer: SealBody;
  };
  /** List the secrets below a folder with their last reads and changes. */
  "GET /api/v1/secrets/uses": {
    path: {};
    query: {
      limit?: number;
      after?: string;
      folder?: string;
      never_read?: "false" | "true";
      read_by?: string;
      not_rotated_for?: string;
    };
    body: undefined;
    answer: {
      secrets: (SecretUseBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show the calling person and the permitted operations. */
  "GET /api/v1/session": {
    path: {};
    query: {};
    body: undefined;
    answer: OwnSessionBody;
  };
  /** End the browser session of the calling person. */
  "DELETE /api/v1/session": {
    path: {};
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Settle the signals that the receiver acknowledges, and return its next signals (RFC 8936). */
  "POST /api/v1/ssf/poll/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: Poll;
    answer: PollBody;
  };
  /** Return whether a stream is enabled, paused or disabled (SSF 8.1.2.1). */
  "GET /api/v1/ssf/status": {
    path: {};
    query: {
      stream_id: string;
    };
    body: undefined;
    answer: StreamStatus;
  };
  /** Enable, pause or disable a stream (SSF 8.1.2.2). */
  "POST /api/v1/ssf/status": {
    path: {};
    query: {};
    body: NewStatus;
    answer: StreamStatus;
  };
  /** Create a stream of signals to the caller (SSF 8.1.1.1). */
  "POST /api/v1/ssf/streams": {
    path: {};
    query: {};
    body: Configuration;
    answer: StreamConfiguration;
  };
  /** Show one stream of the caller by `stream_id`, or list all (SSF 8.1.1.2). */
  "GET /api/v1/ssf/streams": {
    path: {};
    query: {
      stream_id?: string;
    };
    body: undefined;
    answer: StreamConfiguration | StreamConfiguration[];
  };
  /** Update the members of a stream that the request contains (SSF 8.1.1.3). */
  "PATCH /api/v1/ssf/streams": {
    path: {};
    query: {};
    body: Configuration;
    answer: StreamConfiguration;
  };
  /** Replace the configuration of a stream (SSF 8.1.1.4). */
  "PUT /api/v1/ssf/streams": {
    path: {};
    query: {};
    body: Configuration;
    answer: StreamConfiguration;
  };
  /** Delete a stream (SSF 8.1.1.5). */
  "DELETE /api/v1/ssf/streams": {
    path: {};
    query: {
      stream_id: string;
    };
    body: undefined;
    answer: undefined;
  };
  /** Resume the signals about a subject that the receiver removed from the stream (SSF 8.1.3.2). */
  "POST /api/v1/ssf/subjects/add": {
    path: {};
    query: {};
    body: Subject;
    answer: undefined;
  };
  /** End the signals about a subject in a stream, until the receiver adds the subject (SSF 8.1.3.3). */
  "POST /api/v1/ssf/subjects/remove": {
    path: {};
    query: {};
    body: Subject;
    answer: undefined;
  };
  /** Request a verification event over a stream of the caller (SSF 8.1.4.2). */
  "POST /api/v1/ssf/verify": {
    path: {};
    query: {};
    body: Verification;
    answer: undefined;
  };
  /** List the streams of signals to receivers and the state of their deliveries. */
  "GET /api/v1/streams": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      streams: (StreamBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Enable, pause or disable a stream; if the status changes, the receiver gets an event about this (SSF 8.1.5). */
  "POST /api/v1/streams/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: StreamState;
    answer: StreamBody;
  };
  /** Send a verification event to the receiver of a stream (SSF 8.1.4.1). */
  "POST /api/v1/streams/{id}/verify": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Declare a task, or with `parent` a part of a task. */
  "POST /api/v1/tasks": {
    path: {};
    query: {};
    body: NewTask;
    answer: TaskDetail;
  };
  /** List declared tasks, the newest first. */
  "GET /api/v1/tasks": {
    path: {};
    query: {
      agent?: string;
      state?: "live";
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      tasks: (TaskBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show a task. A task that was deleted after its end is shown from the ledger, with the state `pruned`. */
  "GET /api/v1/tasks/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: TaskDetail | PrunedTask;
  };
  /** List the open approval requests of a task, each in full, with one text for all of them. */
  "GET /api/v1/tasks/{id}/approvals": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: WaitingBody;
  };
  /** Send a heartbeat for a held task. */
  "POST /api/v1/tasks/{id}/beat": {
    path: {
      id: string;
    };
    query: {};
    body: Hold;
    answer: EmptyBody;
  };
  /** End a task and revoke everything that was granted under it. */
  "POST /api/v1/tasks/{id}/end": {
    path: {
      id: string;
    };
    query: {};
    body: End;
    answer: TaskDetail;
  };
  /** Hold one of the agent's own tasks that has a heartbeat, as a running copy of the agent. */
  "POST /api/v1/tasks/{id}/hold": {
    path: {
      id: string;
    };
    query: {};
    body: Hold;
    answer: TaskDetail;
  };
  /** Leave a held task. If the task has `end_with_last`, it ends when its last holder leaves. */
  "POST /api/v1/tasks/{id}/leave": {
    path: {
      id: string;
    };
    query: {};
    body: Leave;
    answer: TaskDetail;
  };
  /** Request one approval for the probable calls of a task. */
  "POST /api/v1/tasks/{id}/plan-question": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: PlanQuestion;
  };
  /** Extend the lifetime of a task. */
  "POST /api/v1/tasks/{id}/renew": {
    path: {
      id: string;
    };
    query: {};
    body: Renewal;
    answer: TaskDetail;
  };
  /** List a task with all tasks under it. A parent comes before its children. */
  "GET /api/v1/tasks/{id}/tree": {
    path: {
      id: string;
    };
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      tasks: (TaskBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Create a team. */
  "POST /api/v1/teams": {
    path: {};
    query: {};
    body: NewTeam;
    answer: TeamBody;
  };
  /** List the teams. */
  "GET /api/v1/teams": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      teams: (TeamBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show a team with its members. */
  "GET /api/v1/teams/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: TeamBody;
  };
  /** Set the deputy, who becomes the owner of the team's agents when the team has no active member left. */
  "PUT /api/v1/teams/{name}/deputy": {
    path: {
      name: string;
    };
    query: {};
    body: Deputy;
    answer: TeamBody;
  };
  /** Add a person to a team. */
  "PUT /api/v1/teams/{name}/members/{person}": {
    path: {
      name: string;
      person: string;
    };
    query: {};
    body: undefined;
    answer: TeamBody;
  };
  /** Remove a person from a team. */
  "DELETE /api/v1/teams/{name}/members/{person}": {
    path: {
      name: string;
      person: string;
    };
    query: {};
    body: undefined;
    answer: TeamBody;
  };
  /** Add a threat list by URL or as text; guards check calls against the values of the list. */
  "POST /api/v1/threat-lists": {
    path: {};
    query: {};
    body: NewList;
    answer: ThreatListBody;
  };
  /** List the threat lists, their sizes, and the state of their last fetch. */
  "GET /api/v1/threat-lists": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      lists: (ThreatListBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Remove a threat list; guards no longer check its values. */
  "DELETE /api/v1/threat-lists/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Fetch and parse a threat list now, and show the change that it would make. */
  "POST /api/v1/threat-lists/{name}/test": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: ThreatListTest;
  };
  /** List the authorities whose certificates authenticate clients. */
  "GET /api/v1/trust-anchors": {
    path: {};
    query: {};
    body: undefined;
    answer: AnchorsBody;
  };
  /** Add a trust anchor: an authority that may sign the certificates of clients. */
  "POST /api/v1/trust-anchors": {
    path: {};
    query: {};
    body: NewAnchor;
    answer: AnchorRow;
  };
  /** Remove a trust anchor: clients with certificates of the authority get no further tokens. */
  "DELETE /api/v1/trust-anchors/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: AnchorsBody;
  };
  /** Check a trust anchor, and whether the server would accept a certificate by it; nothing is changed. */
  "POST /api/v1/trust-anchors/{name}/test": {
    path: {
      name: string;
    };
    query: {};
    body: AnchorTrial;
    answer: AnchorTest;
  };
  /** Add a trust domain, and fetch its bundle. */
  "POST /api/v1/trust-domains": {
    path: {};
    query: {};
    body: NewTrustDomain;
    answer: TrustDomainBody;
  };
  /** List the federated trust domains and the state of their bundles. */
  "GET /api/v1/trust-domains": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      trust_domains: (TrustDomainBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Show a federated trust domain, the state of its bundle, and the agents that trust it. */
  "GET /api/v1/trust-domains/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: TrustDomainBody;
  };
  /** End the federation with a trust domain. Workloads lose its bundle at once. */
  "DELETE /api/v1/trust-domains/{name}": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Let the workloads of an agent trust a trust domain. */
  "PUT /api/v1/trust-domains/{name}/agents/{agent}": {
    path: {
      name: string;
      agent: string;
    };
    query: {};
    body: undefined;
    answer: TrustDomainBody;
  };
  /** Withdraw the trust of an agent's workloads in a trust domain. */
  "DELETE /api/v1/trust-domains/{name}/agents/{agent}": {
    path: {
      name: string;
      agent: string;
    };
    query: {};
    body: undefined;
    answer: TrustDomainBody;
  };
  /** Fetch the bundle of a trust domain now. If the fetch fails, the response says why in `failed`. */
  "POST /api/v1/trust-domains/{name}/refresh": {
    path: {
      name: string;
    };
    query: {};
    body: undefined;
    answer: TrustDomainBody;
  };
  /** Show the state of the detectors: their position in the ledger, their errors, and their budget of restrictions. */
  "GET /api/v1/watch": {
    path: {};
    query: {};
    body: undefined;
    answer: WatchBody;
  };
  /** Register a webhook URL or a `mailto:` address for events of the ledger. */
  "POST /api/v1/webhooks": {
    path: {};
    query: {};
    body: NewWebhook;
    answer: WebhookBody;
  };
  /** List the webhooks and the state of their deliveries. */
  "GET /api/v1/webhooks": {
    path: {};
    query: {
      limit?: number;
      after?: string;
    };
    body: undefined;
    answer: {
      webhooks: (WebhookBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Write one test entry, which every webhook receives. */
  "POST /api/v1/webhooks/test": {
    path: {};
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** Remove a webhook. Its waiting messages are not delivered. */
  "DELETE /api/v1/webhooks/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: EmptyBody;
  };
  /** List the workloads of all agents, or of the agent that `agent` names. */
  "GET /api/v1/workloads": {
    path: {};
    query: {
      limit?: number;
      after?: string;
      agent?: string;
    };
    body: undefined;
    answer: {
      workloads: (WorkloadBody | {
        cut: string[];
      })[];
      /** Number of all rows, if it was requested. */
      total?: number | null;
      /** Cursor of the page that follows, which may be empty; null at the end. */
      next: string | null;
    };
  };
  /** Remove a workload. Its processes lose the agent's SVIDs at once. */
  "DELETE /api/v1/workloads/{id}": {
    path: {
      id: string;
    };
    query: {};
    body: undefined;
    answer: WorkloadBody;
  };
  /** Register the first key of an agent with a join token and a proof of the key, and return the agent's identity. */
  "POST /enrol": {
    path: {};
    query: {};
    body: Enrolment;
    answer: EnrolledBody;
  };
  /** Acknowledge that all changes up to `seq` are in force at a guard. */
  "POST /feed/v1/applied": {
    path: {};
    query: {};
    body: Applied;
    answer: EmptyBody;
  };
  /** List the destinations for an egress proxy, without the paths of their secrets. */
  "GET /feed/v1/destinations": {
    path: {};
    query: {};
    body: undefined;
    answer: ProxyDestinations;
  };
  /** Draw units of budgets for a call. */
  "POST /feed/v1/draw": {
    path: {};
    query: {};
    body: Draw;
    answer: Drawn;
  };
  /** Refuse a text that contains a secret which an egress proxy used for an agent in the chain of the token. */
  "POST /feed/v1/find-secret": {
    path: {};
    query: {};
    body: SearchedText;
    answer: EmptyBody;
  };
  /** Give back unused units of budgets; `closed` lists the budgets of which the guard has no units left. */
  "POST /feed/v1/give-back": {
    path: {};
    query: {};
    body: GiveBack;
    answer: GivenBack;
  };
  /** Return the public keys that sign the feed. */
  "GET /feed/v1/jwks": {
    path: {};
    query: {};
    body: undefined;
    answer: FeedKeySet;
  };
  /** Count one call of a throttled agent; refuse the call if it exceeds the agent's limit. */
  "POST /feed/v1/pace": {
    path: {};
    query: {};
    body: Paced;
    answer: EmptyBody;
  };
  /** Accept the records of a guard; `next` is the number of the record that the server expects next. */
  "POST /feed/v1/report": {
    path: {};
    query: {};
    body: Report;
    answer: NextRecord;
  };
  /** Close a spool whose records are all reported, and return its unused units to their budgets. */
  "POST /feed/v1/settle": {
    path: {};
    query: {};
    body: Settled;
    answer: EmptyBody;
  };
  /** Replay the stops that a guard has kept and that the database has lost. */
  "POST /feed/v1/stops": {
    path: {};
    query: {};
    body: Stops;
    answer: ReplayedBody;
  };
  /** Return the secret of a destination to the egress proxy of an agent, for one request of the agent. */
  "POST /feed/v1/use-secret": {
    path: {};
    query: {};
    body: SecretUse;
    answer: UsedSecret;
  };
  /** Return every public key whose tokens may still be valid (RFC 7517). */
  "GET /jwks": {
    path: {};
    query: {};
    body: undefined;
    answer: KeySetBody;
  };
  /** Return the newest signed checkpoint of the log. */
  "GET /ledger/v1/checkpoint": {
    path: {};
    query: {};
    body: undefined;
    answer: string;
  };
  /** Return the public key of the log as a C2SP vkey. */
  "GET /ledger/v1/key": {
    path: {};
    query: {};
    body: undefined;
    answer: string;
  };
  /** Return 200 while the event loop runs. */
  "GET /livez": {
    path: {};
    query: {};
    body: undefined;
    answer: LiveBody;
  };
  /** Redirect the browser to a SAML identity provider. */
  "GET /login/saml/{provider}": {
    path: {
      provider: string;
    };
    query: {
      return_to?: string;
      prompt?: string;
      max_age?: number;
      acr_values?: string;
      login_hint?: string;
    };
    body: undefined;
    answer: undefined;
  };
  /** Redirect the browser to an OpenID provider. */
  "GET /login/with/{provider}": {
    path: {
      provider: string;
    };
    query: {
      return_to?: string;
      prompt?: string;
      max_age?: number;
      acr_values?: string;
      login_hint?: string;
    };
    body: undefined;
    answer: undefined;
  };
  /** Return the OpenAPI 3.1 document of this server. */
  "GET /openapi.json": {
    path: {};
    query: {};
    body: undefined;
    answer: Record<string, unknown> | undefined;
  };
  /** Return 200 if every check passes, otherwise 503. */
  "GET /readyz": {
    path: {};
    query: {};
    body: undefined;
    answer: ReadyBody;
  };
  /** Register a client (RFC 7591 section 3). */
  "POST /register": {
    path: {};
    query: {};
    body: Record<string, unknown>;
    answer: RegistrationBody;
  };
  /** Read a registration (RFC 7592 section 2.1). */
  "GET /register/{client_id}": {
    path: {
      client_id: string;
    };
    query: {};
    body: undefined;
    answer: RegistrationBody;
  };
  /** Replace the metadata of a registration (RFC 7592 section 2.2). */
  "PUT /register/{client_id}": {
    path: {
      client_id: string;
    };
    query: {};
    body: Record<string, unknown>;
    answer: RegistrationBody;
  };
  /** Delete a registration, and end the consents to the client with their tokens (RFC 7592 section 2.3). */
  "DELETE /register/{client_id}": {
    path: {
      client_id: string;
    };
    query: {};
    body: undefined;
    answer: undefined;
  };
  /** Return the trust bundle of this trust domain (SPIFFE Federation, 5.2.1.3). */
  "GET /spiffe/bundle": {
    path: {};
    query: {};
    body: undefined;
    answer: BundleBody;
  };
  /** Return the claims about the person for whom the client acts (OpenID Connect Core 1.0 section 5.3). */
  "GET /userinfo": {
    path: {};
    query: {};
    body: undefined;
    answer: UserinfoBody;
  };
  /** Return the claims about the person for whom the client acts (OpenID Connect Core 1.0 section 5.3). */
  "POST /userinfo": {
    path: {};
    query: {};
    body: undefined;
    answer: UserinfoBody;
  };
  /** Answer a request of the Vault API. */
  "GET /v1/{path}": {
    path: {
      path: string;
    };
    query: {
      list?: string;
    };
    body: undefined;
    answer: VaultEnvelope | undefined;
  };
  /** Answer a request of the Vault API. */
  "POST /v1/{path}": {
    path: {
      path: string;
    };
    query: {};
    body: Record<string, unknown> | undefined;
    answer: VaultEnvelope | undefined;
  };
  /** Answer a request of the Vault API. */
  "PUT /v1/{path}": {
    path: {
      path: string;
    };
    query: {};
    body: Record<string, unknown> | undefined;
    answer: VaultEnvelope | undefined;
  };
  /** Answer a request of the Vault API. */
  "DELETE /v1/{path}": {
    path: {
      path: string;
    };
    query: {};
    body: undefined;
    answer: VaultEnvelope | undefined;
  };
}
