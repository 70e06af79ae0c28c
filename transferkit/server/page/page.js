// Shows what the server has and does, from its own API alone. Text from the server is text, never markup.

const BUSY = 500, IDLE = 3000; // milliseconds between two looks, while something is pulled and else
const find = (id) => document.getElementById(id);
const here = location.origin; // without a password that the address of the page may have: fetch refuses one
const state = { readOnly: true, store: 0, models: "", seen: new Map(), pulls: new Map() };

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${count.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

function age(moment) {
  const seconds = (new Date(moment) - Date.now()) / 1000;
  const format = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  for (const [unit, size] of [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(seconds) >= size) return format.format(Math.round(seconds / size), unit);
  }
  return "just now";
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function button(text, label, action, className) {
  const element = make("button", className, text);
  element.type = "button";
  element.setAttribute("aria-label", label);
  element.addEventListener("click", action);
  return element;
}

function put(id, text) { if (find(id).textContent !== text) find(id).textContent = text; } // the same is not read out again
function say(text) { put("said", text); put("failed", ""); }
function fail(text) { put("failed", text); put("said", ""); }

async function ask(path, method = "GET", body) {
  const answer = await fetch(here + path, { method, body: body && JSON.stringify(body) });
  const text = await answer.text();
  const document = text ? JSON.parse(text) : {};
  if (!answer.ok) throw new Error(document.error || `the server answered ${answer.status}`);
  return document;
}

// -- models

async function showModels() {
  const { models } = await ask("/api/tags");
  const key = JSON.stringify([models, state.readOnly]);
  find("no-models").hidden = models.length > 0;
  const isNew = key !== state.models;
  state.models = key;
  if (!isNew) {
    for (const time of find("models").querySelectorAll("time")) time.textContent = age(time.dateTime);
    return;
  }
  const focused = document.activeElement?.closest("#models li")?.dataset.name;
  find("models").replaceChildren(...models.map(model));
  if (focused) find("models").querySelector(`[data-name="${CSS.escape(focused)}"] button`)?.focus();
}

function model(each) {
  const item = make("li");
  item.dataset.name = each.name;
  const time = make("time", "", age(each.modified_at));
  time.dateTime = each.modified_at;
  const more = make("span", "more", `${bytes(each.size)}, `);
  more.append(time);
  const details = [each.details?.parameter_size, each.details?.quantization_level].filter(Boolean).join(" ");
  if (details) more.append(`, ${details}`);
  item.append(make("span", "name", each.name), more);
  if (!state.readOnly) item.append(button("Delete", `Delete ${each.name}`, () => remove(each.name), "danger"));
  return item;
}

// Each question has a dialog of its own: that one was closed is told later, when the next may be open already.
function confirmed(question) {
  const dialog = document.body.appendChild(find("question").content.querySelector("dialog").cloneNode(true));
  dialog.querySelector("p").textContent = question;
  dialog.setAttribute("aria-label", question);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => {
    dialog.remove();
    done(dialog.returnValue === "yes");
  }));
}

async function remove(name) {
  if (!await confirmed(`Delete ${name}? Blobs that no other model needs are removed.`)) return;
  try {
    await ask("/api/delete", "DELETE", { model: name });
    say(`${name} was deleted`);
  } catch (error) {
    fail(`${name} was not deleted: ${error.message}`);
  }
  await look();
  find("models-title").tabIndex = -1;
  find("models-title").focus();
}

// -- transfers

async function showTransfers() {
  const { models } = await ask("/api/ps");
  const list = find("transfers");
  const items = new Map([...list.children].map((item) => [item.dataset.name, item]));
  for (const each of models) {
    const item = items.get(each.name) || list.appendChild(transfer(each.name));
    items.delete(each.name);
    update(item, each);
  }
  for (const [name, item] of items) { item.remove(); state.seen.delete(name); }
  find("no-transfers").hidden = models.length > 0;
  if (items.size) await Promise.all([showModels(), showStore()]);
  return models.length > 0;
}

function transfer(name) {
  const item = make("li");
  item.dataset.name = name;
  const bar = make("progress");
  bar.setAttribute("aria-label", `Pull of ${name}`);
  item.append(make("span", "name", name), bar, make("span", "more", "asking the registry"));
  return item;
}

function update(item, { name, size, completed }) {
  if (!size) return;
  const now = performance.now(), last = state.seen.get(name);
  const rate = last && now > last.now ? (completed - last.completed) / (now - last.now) * 1000 : 0;
  state.seen.set(name, { now, completed });
  const bar = item.querySelector("progress");
  bar.max = size;
  bar.value = completed;
  const speed = rate > 0 ? `, ${bytes(rate)}/s` : "";
  item.querySelector(".more").textContent = `${bytes(completed)} of ${bytes(size)}${speed}`;
}

async function pull(event) {
  event.preventDefault();
  const name = find("name").value.trim();
  if (!name || state.pulls.has(name)) return;
  state.pulls.set(name, true);
  say(`pulling ${name}`);
  find("name").value = "";
  try {
    const answer = await fetch(`${here}/api/pull`, { method: "POST", body: JSON.stringify({ model: name }) });
    if (!answer.ok) throw new Error((await answer.json()).error);
    wake();
    const last = await lastLine(answer.body);
    if (last.status !== "success") throw new Error(last.error || "the connection was lost; pull it again to go on");
    say(`${name} is here`);
  } catch (error) {
    fail(`${name} was not pulled: ${error.message}`);
  }
  state.pulls.delete(name);
  wake();
}

async function lastLine(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", last = "{}";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return JSON.parse(last);
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    last = lines.findLast((line) => line) || last;
  }
}

// -- the store

async function showStore(method = "GET") {
  const path = method === "GET" ? "/api/transferkit/store" : "/api/transferkit/verify";
  const store = await ask(path, method);
  state.readOnly = store.read_only;
  find("read-only").hidden = !store.read_only;
  find("pulling").hidden = find("verify").hidden = store.read_only;
  if (store.error) { fail(store.error); return false; }
  find("where").textContent = store.path;
  find("size").textContent = `${bytes(store.size)} in ${store.blobs} blobs`;
  find("free").textContent = bytes(store.free);
  const check = store.verify, isRunning = Boolean(check) && !check.ended_at;
  find("check-progress").hidden = !isRunning;
  if (isRunning) { find("check-progress").max = check.total || 1; find("check-progress").value = check.completed; }
  find("checked").textContent = outcome(check, isRunning);
  find("wrong").replaceChildren(...(check?.wrong || []).map(({ digest, size }) =>
    make("li", "", `${digest} (${bytes(size)}) is not what its name says; pull its model again`)));
  return isRunning;
}

function outcome(check, isRunning) {
  if (!check) return "never";
  if (isRunning) return `${bytes(check.completed)} of ${bytes(check.total)}`;
  const text = check.error ? `not finished: ${check.error}` : check.count ? `${check.count} blobs are wrong` : "every blob is right";
  return `${text} (${age(check.ended_at)})`;
}

// -- all of it, again and again while somebody looks

let timer = 0;

async function look() {
  clearTimeout(timer);
  timer = 0;
  let isBusy = state.pulls.size > 0;
  try {
    isBusy = await showStore() || isBusy;
    await showModels();
    isBusy = await showTransfers() || isBusy;
    if (find("failed").dataset.lost) { fail(""); delete find("failed").dataset.lost; }
  } catch (error) {
    fail(`the server does not answer: ${error.message}`);
    find("failed").dataset.lost = "yes";
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, isBusy ? BUSY : IDLE);
}

function wake() { clearTimeout(timer); timer = setTimeout(look, 0); }

find("pull").addEventListener("submit", pull);
find("verify").addEventListener("click", async () => {
  try { await showStore("POST"); say("every blob is being checked"); } catch (error) { fail(error.message); }
  wake();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) wake(); });
look();
