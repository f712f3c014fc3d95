// A SAML 2.0 identity provider made by others (samlify). argv: { entityId, ssoUrl, spMetadata, user } (JSON); the key and
// the certificate are in the environment. Reads the URL of an authentication request from each line of its input, and
// prints { SAMLResponse, RelayState } for it.
import { createInterface } from "node:readline";
import samlify from "samlify";

const { entityId, ssoUrl, spMetadata, user } = JSON.parse(process.argv[2]);
samlify.setSchemaValidator({ validate: async () => "valid" });
const { binding, nameid } = { binding: samlify.Constants.namespace.binding, nameid: samlify.Constants.namespace.format };
const idp = samlify.IdentityProvider({
  entityID: entityId,
  privateKey: process.env.SIGNING_KEY,
  signingCert: process.env.SIGNING_CERTIFICATE,
  nameIDFormat: [nameid.persistent],
  singleSignOnService: [{ Binding: binding.redirect, Location: ssoUrl }],
  loginResponseTemplate: {
    context: samlify.SamlLib.defaultLoginResponseTemplate.context,
    attributes: [{ name: "groups", valueTag: "groups", nameFormat: "urn:oasis:names:tc:SAML:2.0:attrname-format:basic", valueXsiType: "xs:string" }],
  },
});
if (process.argv[3] === "metadata") {
  console.log(idp.getMetadata());
  process.exit(0);
}
const sp = samlify.ServiceProvider({ metadata: spMetadata });
const fill = (acs, request) => (template) => {
  const now = new Date(request.issueInstant); // the clock of the test
  const later = new Date(now.getTime() + 300_000).toISOString();
  const id = `_${crypto.randomUUID()}`;
  const statement = `<saml:AuthnStatement AuthnInstant="${now.toISOString()}"><saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>`;
  const values = {
    ID: id, AssertionID: `_${crypto.randomUUID()}`, Destination: acs, Audience: sp.entityMeta.getEntityID(),
    SubjectRecipient: acs, AssertionConsumerServiceURL: acs, Issuer: entityId, IssueInstant: now.toISOString(),
    StatusCode: samlify.Constants.StatusCode.Success, ConditionsNotBefore: now.toISOString(),
    ConditionsNotOnOrAfter: later, SubjectConfirmationDataNotOnOrAfter: later, NameIDFormat: nameid.persistent,
    NameID: user.id, InResponseTo: request.id, AuthnStatement: statement, attrGroups: user.groups,
  };
  return { id, context: samlify.SamlLib.replaceTagsByValue(template.replace("{AuthnStatement}", statement), values) };
};
for await (const line of createInterface({ input: process.stdin })) {
  const query = Object.fromEntries(new URL(line).searchParams);
  const { extract } = await idp.parseLoginRequest(sp, "redirect", { query });
  const acs = sp.entityMeta.getAssertionConsumerService("post");
  const { context } = await idp.createLoginResponse(sp, { extract }, "post", user, fill(acs, extract.request));
  console.log(JSON.stringify({ SAMLResponse: context, RelayState: query.RelayState }));
}
