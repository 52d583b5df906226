// One of several processes that accept connections on a socket that somebody else has bound.
const http = require("http");

const server = http.createServer((request, response) => {
  request.resume();
  request.on("end", () => setTimeout(() => {
    response.setHeader("cache-control", "no-store");
    response.end(String(process.pid));
  }, request.url == "/slow" ? 200 : 0));
});
server.listen({ fd: Number(process.argv[2]) });
// It accepts for a while still, as servers do that look for the signal now and then; what is under way is answered first.
process.on("SIGTERM", () => setTimeout(() => server.close(() => process.exit(0)), 500));
