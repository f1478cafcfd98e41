// All samples: filtered, searched, sorted by a feature, as many as one scrolls to.

const PAGE = 60;

const samplesLink = (asked, text) => el("a", { class: "to-samples", href: `#samples?${queryOf(asked)}` }, text);
const queryOf = (asked) => new URLSearchParams(Object.entries(asked).filter(([, value]) => known(value) && value !== "")).toString();

const classImages = (c) => el("dd", { class: "note" }, samplesLink(isMultiLabel() ? { class: c } : { class: c }, `All its ${things()}`));
const featureImages = (j) => [" ", samplesLink({ feature: j, order: "high" }, `All ${things()} by this feature`)];
const pairImages = (c, rival) => !isMultiLabel() && rival.to[0] > 0 && el("span", { class: "note pair-link" }, samplesLink({ class: c, predicted: rival.class }, `${thing() === "image" ? "All" : "All the"} ${count(rival.to[0])} ${rival.to[0] === 1 ? "mistake" : "mistakes"}`));

// In the viewer and beside a mistake.
function imageLinks(image) {
  if (!known(image?.sample)) return null;
  return el("p", { class: "note" }, el("a", { href: `#sample/${image.part}/${image.sample}` }, "What decides it, and what if"));
}

function samplesView(argument) {
  const asked = Object.fromEntries(new URLSearchParams(argument || ""));
  const { live: here } = about();
  const grid = el("div", { class: "cases samples" });
  const end = el("p", { class: "more-rows-line" });
  const counted = el("span", { class: "counted", role: "status" });
  let turn = new AbortController();
  let views = [];
  let total = null;
  let busy = false;
  const refill = () => {
    order.hidden = !asked.feature;
    readdress(queryOf(asked) ? `samples?${queryOf(asked)}` : "samples");
    turn.abort();
    turn = new AbortController();
    views = [];
    total = null;
    busy = false;
    counted.textContent = "";
    grid.replaceChildren();
    end.replaceChildren();
    grow();
  };
  const grow = async () => {
    if (busy || (total !== null && views.length >= total) || (total !== null && !grid.isConnected)) return;
    busy = true;
    const mine = turn;
    try {
      const found = await ask(`api/samples?${queryOf({ ...asked, offset: views.length, limit: PAGE })}`, { signal: mine.signal });
      if (mine.signal.aborted) return;
      takeImages(found.images);
      total = found.n;
      counted.textContent = plural(total, thing(), things());
      const feature = asked.feature ? Number(asked.feature) : undefined;
      const added = found.rows.map(([index, value]) => ({ index, value, feature, map: null }));
      const start = views.length;
      views.push(...added);
      const cards = added.map((view, place) => sampleCard(view, () => openViewer(views, start + place)));
      grid.append(...cards);
      if (known(feature)) mapLater(wrapped(cards), added);
      end.replaceChildren();
      if (!total) end.replaceChildren(el("span", { class: "empty" }, `No ${thing()} is like that.`));
      else if (views.length < total) end.append(el("button", { type: "button", class: "tool more-rows", onclick: grow }, `Show ${count(Math.min(PAGE, total - views.length))} more`));
    } catch (error) {
      if (!cancelled(error)) end.replaceChildren(failed(error), el("button", { type: "button", class: "tool", onclick: () => { end.replaceChildren(); grow(); } }, "Try again"));
    } finally {
      if (mine === turn) busy = false;
    }
    if (views.length && nearEnd()) grow();
  };
  const nearEnd = () => grid.isConnected && end.getBoundingClientRect().top < innerHeight + 600;
  new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) grow(); }, { rootMargin: "600px" }).observe(end);
  leaving.signal.addEventListener("abort", () => turn.abort(), { once: true });
  const choose = (key, title, options) => {
    const select = el("select", { onchange: () => { asked[key] = select.value; refill(); } }, options.map(([value, text]) => el("option", { value }, text)));
    select.value = asked[key] ?? "";
    if (select.selectedIndex < 0) select.selectedIndex = 0;
    return el("label", { class: "choice" }, title, select);
  };
  const classes = classOrder().map((c) => [String(c), className(c)]);
  const typed = (key, title, type) => {
    let timer = 0;
    const input = el("input", { type, placeholder: title, "aria-label": title, min: type === "number" ? 0 : null, max: type === "number" ? about().features.length - 1 : null, oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(() => { asked[key] = input.value.trim(); refill(); }, 200);
    } });
    input.value = asked[key] ?? "";
    return input;
  };
  const wrong = el("button", { type: "button", class: "tool", "aria-pressed": String(asked.wrong === "1"), onclick: () => {
    asked.wrong = asked.wrong === "1" ? "" : "1";
    wrong.setAttribute("aria-pressed", String(asked.wrong === "1"));
    refill();
  } }, "Only mistakes");
  const groups = Object.entries(here.attributes || {}).flatMap(([name, values]) => values.map((value) => [JSON.stringify([name, value]), `${name}: ${value}`]));
  const group = groups.length ? groupChoice(asked, groups, refill) : null;
  const splits = here.n.train && here.n.eval ? choose("part", "From", [["", "evaluation"], ["train", "analysis"]]) : null;
  const order = choose("order", "Order", [["", "highest first"], ["low", "lowest first"]]);
  order.hidden = !asked.feature;
  grow();
  return {
    title: capital(things()),
    content: [
      el("div", { class: "heading" }, el("h1", { tabindex: "-1" }, capital(things())), el("p", null, `Every ${thing()} of the run. Point at a class, a call or a feature by the filters, or look for a name.`)),
      el("div", { class: "filter" }, typed("query", "Part of a name", "search"), choose("class", isMultiLabel() ? "Has" : "Label", [["", "all"], ...classes]), choose("predicted", "Called", [["", "anything"], ...classes]), group, splits, wrong,
        el("label", { class: "choice" }, "By feature", typed("feature", "number", "number")), order, counted),
      grid, end,
    ],
  };
}

function groupChoice(asked, groups, refill) {
  const select = el("select", { onchange: () => {
    [asked.group, asked.value] = select.value ? JSON.parse(select.value) : ["", ""];
    refill();
  } }, [["", "all"], ...groups].map(([value, text]) => el("option", { value }, text)));
  select.value = asked.group ? JSON.stringify([asked.group, asked.value]) : "";
  return el("label", { class: "choice" }, "Group", select);
}

// Frames of cards that lie in a list already, as the holder that maps are put into.
const wrapped = (cards) => ({ matches: () => false, querySelectorAll: () => cards.map((card) => card.querySelector(".frame")) });

function sampleCard(view, open) {
  const image = item("image", view.index);
  const right = !known(image.class) || isMultiLabel() || image.class === image.predicted;
  return el("figure", { class: "case" },
    el("button", { type: "button", class: "bare", title: describe(image), onclick: open }, picture(view.index, null)),
    el("figcaption", { class: "said" }, el("bdi", { title: calledName(image.class) }, known(image.class) ? calledName(image.class) : image.id),
      right ? null : el("span", { class: "as" }, "called ", calledLinks(image.predicted)),
      known(view.value) && el("span", { class: "as" }, number(view.value)),
      el("a", { class: "as id-link", href: `#sample/${image.part}/${image.sample}`, title: image.id }, el("bdi", null, image.id))));
}
