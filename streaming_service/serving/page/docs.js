// The API document for people.
import { byId, make } from "/page/dom.js";
import { getJson } from "/page/transport.js";

const code = (text) => make("code", {}, text);

/** Text with `code` in it. */
const prose = (text) => text.split("`").map((part, place) => (place % 2 ? code(part) : part));

function parameters(list) {
  if (!list.length) return null;
  const rows = list.map((parameter) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, code(parameter.name), parameter.required ? make("small", {}, "required") : null),
      make("td", {}, parameter.description),
      make("td", { class: "number" }, parameter.schema.default === undefined ? "" : String(parameter.schema.default)),
    ),
  );
  const head = make("thead", {}, make("tr", {}, ...["Parameter", "Meaning", "Default"].map((name) => make("th", { scope: "col" }, name))));
  return make("div", { class: "scroll" }, make("table", {}, head, make("tbody", {}, ...rows)));
}

function example(path, list) {
  const query = list
    .filter((parameter) => parameter.required && parameter.example)
    .map((parameter) => `${parameter.name}=${[parameter.example].flat()[0]}`)
    .join("&");
  const address = `${path}${query ? `?${query}` : ""}`;
  if (path === "/ws") return make("pre", {}, `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${address}`);
  return make("pre", {}, make("a", { href: address }, address));
}

function operation(path, method, told) {
  const answers = Object.keys(told.responses).join(" ");
  return make(
    "article",
    { class: "card" },
    make("h2", {}, make("b", { class: "method" }, method.toUpperCase()), code(path), make("span", { class: "note" }, answers)),
    make("p", {}, ...prose(`${told.summary}.`)),
    told.description ? make("p", { class: "note" }, ...prose(told.description)) : null,
    parameters(told.parameters ?? []),
    example(path, told.parameters ?? []),
  );
}

async function begin() {
  const parent = byId("docs");
  try {
    const told = await getJson("/api/openapi.json");
    const operations = Object.entries(told.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, each]) => operation(path, method, each)),
    );
    parent.replaceChildren(
      make("h1", {}, told.info.summary),
      make("p", { class: "note" }, told.info.description),
      ...operations,
    );
  } catch (error) {
    parent.replaceChildren(make("p", { class: "note" }, `The document cannot be read: ${error.message}`));
  }
}

begin();
