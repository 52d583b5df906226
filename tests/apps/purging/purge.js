// Purges at the edge whose admin address is the first argument, as each client does it; a line of JSON for each answer.
const [address] = process.argv.slice(2);
const Cloudflare = require("cloudflare");
const Fastly = require("fastly");

const cloudflare = new Cloudflare({ apiToken: "a-token", baseURL: `${address}/client/v4`, maxRetries: 0 });
const of_zone = (what) => cloudflare.cache.purge({ zone_id: "zone", ...what });

// This client knows no other service than its own: all that is its own but the address is as it is.
const { callApi } = Fastly.ApiClient.prototype;
Fastly.ApiClient.prototype.callApi = function (...given) {
  return callApi.call(this, ...given.slice(0, -1), address);
};
Fastly.ApiClient.instance.authenticate("a-token");
const fastly = new Fastly.PurgeApi();
const service_id = "service";

const purges = {
  "cloudflare files": () => of_zone({ files: ["http://shop.test/a?b=1"] }),
  "cloudflare tags": () => of_zone({ tags: ["product:1"] }),
  "cloudflare prefixes": () => of_zone({ prefixes: ["shop.test/dir/"] }),
  "cloudflare hosts": () => of_zone({ hosts: ["shop.test"] }),
  "cloudflare everything": () => of_zone({ purge_everything: true }),
  "fastly url": () => fastly.purgeSingleUrl({ cached_url: "shop.test/a?b=1" }),
  "fastly tag": () => fastly.purgeTag({ service_id, surrogate_key: "product:1" }),
  "fastly soft tag": () => fastly.purgeTag({ service_id, surrogate_key: "product:1", fastly_soft_purge: 1 }),
  "fastly tags": () => fastly.bulkPurgeTag({ service_id, surrogate_key: "product:1 other" }),
  "fastly tags in content": () => fastly.bulkPurgeTag({ service_id, purge_response: { surrogate_keys: ["product:1"] } }),
  "fastly all": () => fastly.purgeAll({ service_id }),
};

// One is asked for by its name on each line that comes in.
require("readline").createInterface({ input: process.stdin }).on("line", async (name) => {
  try {
    console.log(JSON.stringify({ name, answer: await purges[name]() }));
  } catch (error) {
    const { message, error: inner, response } = error;
    console.log(JSON.stringify({ name, error: message ?? inner?.message ?? "failed", text: response?.text }));
  }
});
