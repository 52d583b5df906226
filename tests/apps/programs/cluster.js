// Node's cluster: three workers behind one port.
const cluster = require("cluster");
const http = require("http");

if (cluster.isPrimary) {
  for (let i = 0; i < 3; i++) cluster.fork();
} else {
  http.createServer((request, response) => {
    request.resume();
    request.on("end", () => setTimeout(() => {
      response.setHeader("cache-control", "no-store");
      response.end(String(process.pid));
    }, request.url == "/slow" ? 200 : 0));
  }).listen(process.env.PORT, "127.0.0.1");
}
