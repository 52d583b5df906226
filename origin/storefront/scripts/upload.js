// Sends a file and tells how much of it has gone out, which `fetch` cannot.
import { Refusal, refusal } from "/assets/answers.js";

/** Posts a file and answers the JSON of the answer. `told` is called with the share that has been sent, from 0 to 1. */
export function upload(address, file, told) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    request.setRequestHeader("X-Requested-With", "storefront");
    if (file.type) request.setRequestHeader("Content-Type", file.type);
    request.upload.addEventListener("progress", ({ loaded, total }) => total > 0 && told(loaded / total));
    request.upload.addEventListener("load", () => told(1));
    request.addEventListener("error", () => failed(new Refusal("The shop cannot be reached just now.")));
    request.addEventListener("load", async () => {
      const fields = ["content-type", "retry-after"].map((name) => [name, request.getResponseHeader(name)]);
      const headers = fields.filter(([, value]) => value !== null);
      try {
        const answer = new Response(request.responseText, { status: request.status, headers });
        if (answer.ok) done(await answer.json());
        else failed(await refusal(answer));
      } catch {
        failed(new Refusal("The answer of the shop did not arrive whole."));
      }
    });
    request.send(file);
  });
}
