// Saving: named states, recipes, the mended network, the report of what one sees.

function dialogOf(kind, title, ...content) {
  const dialog = el("dialog", { class: `form-dialog ${kind}`, "aria-label": title }, el("h2", null, title), content,
    el("div", { class: "row closing" }, el("button", { type: "button", class: "tool", onclick: () => dialog.close() }, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

function statesDialog() {
  const list = el("ul", { class: "states" });
  const name = el("input", { type: "text", placeholder: "Name of the state below", "aria-label": "Name of the state below", maxlength: 80 });
  let dialog = null;
  const line = (title, found, remove) => el("li", null,
    el("button", { type: "button", class: "bare-text", onclick: () => { change(found); dialog.close(); }, title: "Go to this state" }, title && el("b", null, el("bdi", null, title)), el("span", { class: "note" }, el("bdi", null, stateText(found)))),
    el("button", { type: "button", class: "tool", onclick: () => { compareWith({ name: title || stateText(found), state: found }); dialog.close(); go("edit/now"); } }, "Compare"),
    remove && el("button", { type: "button", class: "tool", "aria-label": `Forget ${title}`, onclick: remove }, "×"));
  const fill = () => {
    const named = namedStates();
    let last = null;
    try { last = checked(JSON.parse(localStorage.getItem(storeName("last")))); } catch { /* none is kept */ }
    const steps = [...past].reverse().slice(0, 30);
    list.replaceChildren(
      line("The network as it is", PLAIN),
      ...named.map((one, at) => line(one.name, one.state, () => { keepStates(named.filter((_, i) => i !== at)); fill(); })),
      ...(last && !same(last, state) ? [line("Last one of any tab", last)] : []),
      ...steps.filter((one) => !isPlain(one)).map((one) => line("", one)));
  };
  const keep = () => {
    const text = name.value.trim();
    if (!text) { name.focus(); return; }
    keepStates([...namedStates().filter((one) => one.name !== text), { name: text, state }]);
    name.value = "";
    fill();
  };
  fill();
  dialog = dialogOf("states-dialog", "States",
    el("p", { class: "note" }, "The address of this page holds its state too: it can be sent to others who see the same run."),
    el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); keep(); } }, name, el("button", { class: "tool" }, "Keep under this name")), list);
}

function saveDialog() {
  const { live: here } = about();
  const name = el("input", { type: "text", value: nameOf(), "aria-label": "Name", maxlength: 80 });
  const format = el("select", { "aria-label": "Format" }, el("option", { value: "" }, "the edited head alone"), here.formats.map((one) => el("option", { value: one }, one)));
  const said = el("div", { class: "said-of", role: "status" });
  let busy = false;
  const long = async (path, body, done) => {
    if (busy) return; // a second click asks for nothing more
    busy = true;
    const controller = new AbortController();
    const line = progressLine("Working", controller);
    said.replaceChildren(line.node);
    try {
      const found = await ask(path, { body, signal: controller.signal, progress: line.progress });
      said.replaceChildren(...done(found));
    } catch (error) {
      said.replaceChildren(failed(cancelled(error) ? { message: "Cancelled: nothing was written." } : error));
    }
    busy = false;
  };
  const write = () => long("api/write", { state, name: name.value.trim(), format: format.value || null }, (found) => [
    el("p", null, "Written to ", el("code", null, found.folder), "."), ...(found.notes || []).map((note) => el("p", { class: "note" }, note))]);
  const report = () => long("api/report", { state, name: name.value.trim(), start: current.startsWith("edit/now") ? "edit/0" : current.split("?")[0] }, (found) => {
    const link = el("a", { href: found.href, download: `${fileName(name.value)}.html` }, "the report");
    link.click();
    return [el("p", null, "Made: ", link, ".")];
  });
  const file = el("input", { type: "file", accept: ".json,application/json", hidden: true, onchange: () => file.files[0] && loadRecipe(file.files[0]).then((text) => { said.replaceChildren(el("p", null, text)); }, (error) => said.replaceChildren(failed(error))) });
  const section = (title, text, ...content) => el("section", null, el("h3", null, title), el("p", { class: "note" }, text), el("div", { class: "row" }, content));
  const button = (text, call, off) => el("button", { type: "button", class: "tool", onclick: call, disabled: off || null }, text);
  dialogOf("save-dialog", "Save",
    el("label", { class: "choice" }, "Name", name),
    section("The mended network", here.writable === false ? "This run cannot be written to." : "Writes the head with the edits into the run; with a format also the whole network.", format, button("Write", write, here.writable === false)),
    section("The recipe", "The list of edits as a file, which penult edit takes too.", button("Download", downloadRecipe), button("Load…", () => file.click()), file),
    section("The report", "One file that shows this state to others, without a server.", button("Make the report", report)),
    said);
}

function nameOf() {
  const found = namedStates().find((one) => same(one.state, state));
  return found ? fileName(found.name) : "my-head";
}

// A text as a name that all systems take for a file, and the server for a folder of the run.
function fileName(text) {
  const made = text.normalize("NFKD").replace(/\p{M}/gu, "").replace(/[^\w. -]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 50).replace(/[. -]+$/, "");
  return /^(con|prn|aux|nul|com\d|lpt\d|logits) *([.]|$)/i.test(made) ? `head-${made}` : made || "my-head";
}

// As the server wrote it; by hand where it has not answered yet.
function downloadRecipe() {
  const recipe = shown?.answer.recipe && same(shown.after, state) ? shown.answer.recipe : { format: "penult-recipe/1", edits: state.edits };
  const link = el("a", { href: URL.createObjectURL(new Blob([`${JSON.stringify(recipe, null, 2)}\n`], { type: "application/json" })), download: `${nameOf()}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function loadRecipe(file) {
  let found;
  try { found = JSON.parse(await file.text()); } catch { throw new Error(`${file.name}: expected a recipe, a JSON file; this is none.`); }
  const given = found?.format === "penult-recipe/1" ? checked({ head: state.head, edits: found.edits }) : null;
  if (!given) throw new Error(`${file.name}: expected the format penult-recipe/1 with a list of edits.`);
  change(given);
  return `${plural(given.edits.length, "edit", "edits")} of ${file.name} put in place of those before.`;
}
