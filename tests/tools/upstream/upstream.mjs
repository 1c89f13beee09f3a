// A web server behind kubepass that believes nobody but the signed identity header, as any service would: `node upstream.mjs CONFIG.json`.
// CONFIG.json: modules (holds node_modules), port, tls ({cert, key}) or null, jwks (URL), connect ({host, port, ca}: where that URL's host really is),
// issuer, audience, header. Who is verified is answered with who asks and what arrived; every arrival, refused or not, is a line on standard output.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
const { modules, port, tls, jwks, connect, issuer, audience, header } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const { createRemoteJWKSet, customFetch, jwtVerify } = await import(`${modules}/jose/dist/webapi/index.js`);
const fetchAt = (url) => new Promise((resolve, reject) => {
  const { hostname, pathname } = new URL(url), options = { ...connect, servername: hostname, path: pathname, headers: { host: hostname } };
  https.get(options, (answer) => answer.toArray().then((parts) => resolve(new Response(Buffer.concat(parts), { status: answer.statusCode })))).on('error', reject);
});
const keys = createRemoteJWKSet(new URL(jwks), { [customFetch]: fetchAt });
const rules = { issuer, audience, typ: 'kubepass-assertion+jwt', algorithms: ['ES256', 'ES384', 'RS256', 'PS256'], requiredClaims: ['exp', 'sub'] };
const seen = async ({ method, url, headers, rawHeaders }) => {
  const verified = jwtVerify(headers[header] ?? '', keys, rules).then(({ payload }) => payload.token_use === 'assertion' ? { claims: payload } : { error: 'of another use' });
  const who = await verified.catch(({ message }) => ({ error: message }));
  const line = { method, url, headers, names: rawHeaders.filter((_, index) => index % 2 === 0), ...who };
  console.log(JSON.stringify(line));
  return line;
};
(tls ? https.createServer(tls) : http.createServer()).on('request', async (req, res) => {
  const line = await seen(req);
  res.writeHead(line.claims ? 200 : 401, { 'content-type': 'application/json', 'set-cookie': 'app=1; Path=/' }).end(JSON.stringify(line));
}).on('upgrade', async (req, socket) => {
  const { claims } = await seen(req), greeting = `hello ${claims?.username}`;
  const accept = createHash('sha1').update(`${req.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  socket.end(!claims ? 'HTTP/1.1 401 Unauthorized\r\n\r\n' : `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n\x81${String.fromCharCode(greeting.length)}${greeting}`, 'latin1');
}).listen(port, '127.0.0.1');
