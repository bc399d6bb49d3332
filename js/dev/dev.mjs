// Serves the development page: the whole panel on made-up data, or on payloads that Python wrote.
//   npm run dev                      the fixture
//   npm run dev -- a.json b.json     payloads of explorer.scene, as they stand in a report page
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { context } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const payloads = new Map(process.argv.slice(2).map((path) => [basename(path, ".json"), resolve(path)]));
for (const path of payloads.values()) {
  if (!existsSync(path)) throw new Error(`There is no ${path}.`);
}
const plotly = join(here, "../../explorer/report/static/plotly-basic.min.js");
const built = await context({
  absWorkingDir: here,
  entryPoints: ["dev.ts"],
  bundle: true,
  write: false,
  outdir: "served",
  format: "esm",
  sourcemap: "inline",
  logLevel: "warning",
});

/** By path: its type, and what to send. Built anew at each request: a reload shows the sources as they are now. */
const routes = {
  "/": ["text/html", () => createReadStream(join(here, "index.html"))],
  "/dev.js": ["text/javascript", () => bundle(".js")],
  "/dev.css": ["text/css", () => bundle(".css")],
  "/plotly.js": ["text/javascript", () => createReadStream(plotly)],
  "/payloads": ["application/json", () => JSON.stringify([...payloads.keys()])],
};

async function bundle(ending) {
  const { outputFiles } = await built.rebuild();
  return outputFiles.find((file) => file.path.endsWith(ending)).contents;
}

const server = createServer(async (request, response) => {
  const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
  const payload = payloads.get(path.replace("/payloads/", ""));
  const [type, content] = routes[path] ?? (payload ? ["application/json", () => createReadStream(payload)] : []);
  if (!content) {
    response.writeHead(404).end();
    return;
  }
  try {
    const body = await content();
    response.writeHead(200, { "content-type": `${type}; charset=utf-8` });
    if (typeof body.pipe === "function") body.pipe(response);
    else response.end(body);
  } catch (error) {
    response.writeHead(500, { "content-type": "text/plain" }).end(String(error));
  }
});
server.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});
