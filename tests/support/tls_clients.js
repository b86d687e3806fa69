// Asks a gateway over TLS with Node's own client, by one connection, and tells as JSON what came of it.
// Arguments: the address as https://HOST:PORT, the authority's file, and that of a certificate with its key, or "".
"use strict";
const fs = require("fs");
const https = require("https");

const [, , address, authority, certificate] = process.argv;
const shown = certificate ? fs.readFileSync(certificate) : undefined;
const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca: fs.readFileSync(authority), cert: shown, key: shown });

const ask = (path, body) =>
    new Promise((resolve, reject) => {
        const request = https.request(address + path, { agent, method: body === undefined ? "GET" : "POST" }, (answer) => {
            const pieces = [];
            answer.on("data", (piece) => pieces.push(piece));
            answer.on("end", () => {
                const whole = Buffer.concat(pieces);
                const { remotePort, localPort } = request.socket;
                resolve({
                    status: answer.statusCode,
                    bytes: whole.length,
                    text: whole.subarray(0, 100).toString("latin1"),
                    version: request.socket.getProtocol(),
                    connection: `${localPort}-${remotePort}`,
                    reused: request.reusedSocket,
                });
            });
            answer.on("error", reject);
        });
        request.on("error", reject);
        request.end(body);
    });

(async () => {
    const told = [];
    told.push(await ask("/reverse?abc"));
    told.push(await ask("/reverse", "workload"));
    // Chunked, since its length is not told.
    told.push(await ask("/echo", Buffer.alloc(1000000, "x")));
    console.log(JSON.stringify(told));
    agent.destroy();
})().catch((error) => {
    console.log(JSON.stringify({ error: error.code || error.message }));
    process.exitCode = 1;
});
