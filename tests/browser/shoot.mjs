// Screenshots of scenes in the PlayCanvas engine, in headless Chromium with a software WebGL.
// Usage: node shoot.mjs CHROMIUM OUT_FOLDER VIEW SCENE...   Prints one JSON line a scene.
// VIEW is JSON: {"centre": [x, y, z], "radius": r} in the space of the .ply, for a streamed scene
// with "level": n. A SCENE is a file, or a folder with a lod-meta.json and all that it names.
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const TYPES = { ".html": "text/html", ".mjs": "text/javascript" };
const [executablePath, out, view, ...scenes] = process.argv.slice(2);
const byName = new Map(scenes.map((scene) => [path.basename(scene), scene]));

const locate = (url) => {
  const [, kind, name, ...inside] = url.split("?")[0].split("/");
  if (kind === "viewer.html") return path.join(HERE, "viewer.html");
  if (kind === "engine") return path.join(HERE, "node_modules/playcanvas/build", path.basename(name));
  if (kind === "scene") return path.join(byName.get(decodeURIComponent(name)), ...inside);
  return undefined;
};

const server = createServer(async (request, response) => {
  try {
    const file = locate(request.url);
    const body = await readFile(file);
    response.writeHead(200, { "content-type": TYPES[path.extname(file)] ?? "application/octet-stream" });
    response.end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"],
});
try {
  for (const name of byName.keys()) {
    const page = await browser.newPage({ viewport: { width: 512, height: 512 } });
    const log = [];
    page.on("console", (message) => log.push(message.text()));
    page.on("pageerror", (error) => log.push(String(error)));
    const isFolder = (await stat(byName.get(name))).isDirectory();
    const query = new URLSearchParams({ scene: isFolder ? `${name}/lod-meta.json` : name, view });
    await page.goto(`http://127.0.0.1:${server.address().port}/viewer.html?${query}`);
    await page.waitForFunction(() => window.drawn, undefined, { timeout: 120_000 });
    const drawn = await page.evaluate(() => window.drawn);
    await page.screenshot({ path: path.join(out, `${name}.png`) });
    console.log(JSON.stringify({ scene: name, ...drawn, log }));
    await page.close();
  }
} finally {
  await browser.close();
  server.close();
}
