// Reading another page of the shop as a document. XMLHttpRequest parses it without running anything of it, which is why no
// exception from the pages' Trusted Types is needed.
import { Refusal } from "/assets/answers.js";

export function readPage(address) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.responseType = "document";
    request.open("GET", address);
    request.onload = () => {
      const seconds = Number.parseInt(request.getResponseHeader("retry-after") ?? "", 10);
      if (request.status === 200 && request.responseXML) resolve(request.responseXML);
      else reject(new Refusal("The shop cannot answer just now.", { status: request.status, retryAfter: Number.isNaN(seconds) ? null : seconds }));
    };
    request.onerror = () => reject(new Refusal("The shop cannot be reached just now."));
    request.send();
  });
}
