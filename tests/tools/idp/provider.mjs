// An OpenID provider on loopback for the tests and the demo: the certified `oidc-provider` package with its development
// login and consent pages, which accept any password. Never for anything but tests.
//
//   node provider.mjs CONFIG.json
//
// CONFIG.json: modules (directory that holds node_modules), issuer, port, tls ({cert, key}: paths) or null, clients (metadata as in
// OpenID Connect Dynamic Client Registration), users (path of a JSON file, login name -> claims; read again at every login),
// keys (path; signing keys survive a restart there), issued (path; every answer of the token endpoint, one a line), id_token_ttl (seconds).
//
// POST /-/settings with a JSON object changes what the provider does from the next request on:
//   rotate: true                 new signing key; the old one is gone from the JWKS
//   claims_in: "id_token" | "userinfo"
//   delay_ms: N                  every answer waits that long
//   fail: {discovery|jwks|authorization|token|userinfo: {status, body}}  that endpoint answers so instead
//   pkce_required: false         clients may leave PKCE out
//   id_token: {claims, header, sign: "right" | "unpublished" | "none"}   the ID token is altered and signed again; a claim of null is left out
// `null` puts a setting back.
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const config = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const modules = createRequire(join(config.modules, 'package.json'));
const load = (name) => import(pathToFileURL(modules.resolve(name)).href);
const { Provider } = await load('oidc-provider');
const jose = await load(modules.resolve('jose', { paths: [modules.resolve('oidc-provider')] }));

// What the provider remembers lives as long as this process, also when the provider is built anew with other settings.
const memory = new Map();

class Memory {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model} ${id}`; }
  only(test) { return [...memory].find(([key, value]) => key.startsWith(`${this.model} `) && test(value))?.[1]; }
  async upsert(id, payload, expiresIn) {
    memory.set(this.key(id), { payload, until: expiresIn ? Date.now() + expiresIn * 1000 : Infinity });
  }
  async find(id) {
    const found = memory.get(this.key(id));
    return found && found.until > Date.now() ? found.payload : undefined;
  }
  async findByUid(uid) { return this.only((value) => value.payload.uid === uid)?.payload; }
  async findByUserCode(userCode) { return this.only((value) => value.payload.userCode === userCode)?.payload; }
  async consume(id) { memory.get(this.key(id)).payload.consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { memory.delete(this.key(id)); }
  async revokeByGrantId(grantId) {
    for (const [key, value] of memory) if (value.payload.grantId === grantId) memory.delete(key);
  }
}

const settings = { claims_in: 'id_token', delay_ms: 0, fail: {}, id_token: null, pkce_required: true };
let keys = await storedKeys();
let provider = build();

async function newKey() {
  const { privateKey } = await jose.generateKeyPair('RS256', { extractable: true });
  const jwk = await jose.exportJWK(privateKey);
  return { ...jwk, use: 'sig', alg: 'RS256', kid: await jose.calculateJwkThumbprint(jwk) };
}

async function storedKeys() {
  if (existsSync(config.keys)) return JSON.parse(readFileSync(config.keys, 'utf8'));
  return storeKeys([await newKey()]);
}

function storeKeys(list) {
  writeFileSync(config.keys, JSON.stringify(list), { mode: 0o600 });
  return list;
}

function findAccount(_ctx, id) {
  const user = JSON.parse(readFileSync(config.users, 'utf8'))[id];
  return user && { accountId: id, claims: () => ({ sub: id, ...user }) };
}

function build() {
  const built = new Provider(config.issuer, {
    adapter: Memory,
    clients: config.clients,
    findAccount,
    jwks: { keys },
    claims: {
      openid: ['sub'],
      email: ['email', 'email_verified'],
      profile: ['name', 'preferred_username'],
      groups: ['groups'],
    },
    scopes: ['openid', 'email', 'profile', 'groups', 'offline_access'],
    conformIdTokenClaims: settings.claims_in === 'userinfo',
    pkce: { required: () => settings.pkce_required },
    cookies: {
      keys: ['only for tests'],
      // Cookies do not tell ports apart: two providers on one address need names of their own.
      names: { session: `_session_${config.port}`, interaction: `_interaction_${config.port}`, resume: `_resume_${config.port}` },
    },
    features: { devInteractions: { enabled: true } },
    ttl: {
      IdToken: config.id_token_ttl ?? 3600, AccessToken: 3600, AuthorizationCode: 60, Grant: 86400, Interaction: 3600, Session: 86400, RefreshToken: 86400,
    },
  });
  built.use(alter);
  return built;
}

async function alter(ctx, next) {
  await next();
  if (ctx.oidc?.route === 'token' && ctx.body?.id_token) appendFileSync(config.issued, `${JSON.stringify(ctx.body)}\n`, { mode: 0o600 });
  if (ctx.oidc?.route === 'token' && settings.id_token && ctx.body?.id_token) {
    ctx.body = { ...ctx.body, id_token: await altered(ctx.body.id_token, settings.id_token) };
  }
}

async function altered(token, { claims = {}, header = {}, sign = 'right' }) {
  const payload = Object.fromEntries(Object.entries({ ...jose.decodeJwt(token), ...claims }).filter(([, value]) => value !== null));
  const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  if (sign === 'none') return `${base64({ alg: 'none', ...header })}.${base64(payload)}.`;
  const key = sign === 'unpublished' ? await newKey() : keys[0];
  const protectedHeader = { ...jose.decodeProtectedHeader(token), kid: sign === 'unpublished' ? key.kid : keys[0].kid, ...header };
  return new jose.SignJWT(payload).setProtectedHeader(protectedHeader).sign(await jose.importJWK(key, 'RS256'));
}

const ENDPOINTS = {
  '/.well-known/openid-configuration': 'discovery', '/jwks': 'jwks', '/auth': 'authorization', '/token': 'token', '/me': 'userinfo',
};

async function change(request, response) {
  let body = '';
  for await (const part of request) body += part;
  const { rotate, ...changes } = JSON.parse(body);
  Object.assign(settings, changes);
  settings.fail ??= {};
  if (rotate) keys = storeKeys([await newKey()]);
  if (rotate || 'claims_in' in changes) provider = build();
  response.writeHead(204).end();
}

async function answer(request, response) {
  const path = request.url.split('?')[0];
  if (path === '/-/settings' && request.method === 'POST') return change(request, response);
  if (settings.delay_ms) await new Promise((resolve) => { setTimeout(resolve, settings.delay_ms); });
  const failure = settings.fail[ENDPOINTS[path]];
  if (failure) {
    const text = typeof failure.body === 'string' ? failure.body : JSON.stringify(failure.body ?? {});
    return response.writeHead(failure.status, { 'content-type': 'application/json' }).end(text);
  }
  return provider.callback()(request, response);
}

const handler = (request, response) => answer(request, response).catch((error) => {
  console.error(error);
  response.writeHead(500).end(String(error));
});
const server = config.tls
  ? https.createServer({ cert: readFileSync(config.tls.cert), key: readFileSync(config.tls.key) }, handler)
  : http.createServer(handler);
server.listen(config.port, '127.0.0.1', () => console.log(`listening ${config.issuer}`));
