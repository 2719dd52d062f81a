// One trace: its episodes coloured by progress, between the boundaries with their values and forced answers.
const AT_ONCE = 50_000; // characters of one text shown before a click

// colours an element by progress: from red at -1 over none at 0 to blue at +1
function colour(element, progress) {
  element.classList.add("progress", progress === null ? "unknown" : progress < 0 ? "down" : "up");
  element.style.setProperty("--amount", `${Math.round(100 * Math.min(1, Math.abs(progress ?? 0)))}%`);
  return element;
}

function text(tag, content) {
  const element = make(tag, { dir: "auto" }, content.slice(0, AT_ONCE));
  const left = content.length - AT_ONCE;
  if (left <= 0) return [element];
  const more = make("button", { type: "button" }, `Show ${left.toLocaleString("en")} more characters`);
  more.addEventListener("click", () => {
    element.textContent = content;
    more.remove();
  });
  return [element, more];
}

function forcedAnswers(b) {
  if (!b.branches.length) return make("p", { className: "quiet" }, "No branches at this boundary.");
  const list = make("ol", { start: 0 });
  for (const { text: answer, verdict } of b.branches) {
    const mark = { right: "✓", wrong: "✗" }[verdict] ?? "?";
    list.append(
      make("li", {}, make("span", { className: `verdict ${verdict}` }, `${mark} ${verdict}`), ...text("code", answer)),
    );
  }
  return list;
}

function boundary(b, j) {
  const interval = b.n ? `; 95% ${number(b.ci95[0])} to ${number(b.ci95[1])}` : "";
  const details = make(
    "details",
    {},
    make(
      "summary",
      {},
      make("span", { className: "where" }, `boundary ${j}`),
      make("b", {}, `value ${number(b.value)}${b.stderr ? ` ± ${number(b.stderr)}` : ""}`),
      make("span", { className: "quiet" }, `n = ${b.n}${interval}`),
      make("span", { className: "quiet" }, b.budget === null ? "no branches" : `budget ${Math.round(b.budget)} tokens`),
    ),
  );
  details.addEventListener("toggle", () => details.append(forcedAnswers(b)), { once: true });
  return make("div", { className: "boundary" }, details);
}

function episode(e, j, before, after) {
  const head = make(
    "header",
    {},
    make("h4", {}, `Episode ${j}`),
    make("b", {}, `progress ${number(e.progress, true)} ± ${number(e.stderr)}`),
    make("span", { className: "quiet" }, `value ${number(before.value)} → ${number(after.value)}`),
    make("span", { className: "quiet" }, `${plural(e.stop - e.start, "token")} (${e.start} to ${e.stop})`),
  );
  const article = make("article", { id: `episode-${j}`, tabIndex: -1 }, head, ...text("pre", e.text.replace(/^\n+|\n+$/g, "")));
  return colour(article, e.progress);
}

function overview(trace, address) {
  const strip = make("nav", { className: "strip", ariaLabel: "Episodes, with widths proportional to their tokens" });
  trace.episodes.forEach((e, j) => {
    const name = `episode ${j}: progress ${number(e.progress, true)}`;
    const link = make("a", { href: `${address}/${j}`, title: name, ariaLabel: name }, number(e.progress, true));
    link.style.flexGrow = e.stop - e.start;
    strip.append(colour(link, e.progress));
  });
  return strip;
}

// the value at each boundary over the tokens of the thinking, from 0 to 1
function valueLine(trace) {
  const svg = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const end = trace.episodes[trace.episodes.length - 1].stop || 1;
  const places = [0, ...trace.episodes.map((e) => e.stop)];
  const points = trace.boundaries
    .map((b, j) => [(1000 * places[j]) / end, b.value])
    .filter(([, value]) => value !== null)
    .map(([x, value]) => [x, 58 - 56 * value]);
  const said = trace.boundaries.map((b) => number(b.value)).join(", ");
  const box = svg("svg", { viewBox: "0 0 1000 60", preserveAspectRatio: "none", class: "value-line", role: "img" });
  box.setAttribute("aria-label", `Value at each boundary over tokens: ${said}`);
  // it holds until the next boundary
  const steps = points.flatMap(([x, y], k) => (k ? [[x, points[k - 1][1]], [x, y]] : [[x, y]]));
  box.append(svg("polyline", { points: steps.map((p) => p.join(",")).join(" ") }));
  return box;
}

// The elements of a trace; `address` is its link, `name` its title.
function traceElements(trace, address, name) {
  const outcome = trace.outcome.replace("_", " ");
  const facts = [
    plural(trace.tokens, "token"),
    `${trace.thinking} of thinking`,
    plural(trace.episodes.length, "episode"),
  ].join(" · ");
  const parts = [
    make(
      "h3",
      { id: "trace-name", tabIndex: -1 },
      make("a", { href: address, title: "link to this trace" }, make("bdi", {}, name)),
      make("span", { className: `verdict ${trace.outcome}` }, outcome),
      make("span", { className: "quiet" }, facts),
    ),
  ];
  if (trace.question !== null) {
    parts.push(
      make("div", { className: "question" }, make("h4", {}, "Problem"), ...text("pre", trace.question)),
      make("p", { className: "quiet" }, "Reference answer: ", ...text("code", trace.reference)),
    );
  }
  if (trace.episodes.length > 1) parts.push(valueLine(trace), overview(trace, address));
  trace.boundaries.forEach((b, j) => {
    parts.push(boundary(b, j));
    const e = trace.episodes[j];
    if (e) parts.push(episode(e, j, b, trace.boundaries[j + 1]));
  });
  const answer = trace.after
    ? text("pre", trace.after.trim())
    : [make("p", { className: "quiet" }, "The trace ends within its thinking: it has no answer.")];
  const head = make("header", {}, make("h4", {}, "After the thinking"));
  head.append(make("span", { className: `verdict ${trace.outcome}` }, outcome));
  if (trace.answer !== null) head.append(make("span", { className: "quiet" }, "answer: ", ...text("code", trace.answer)));
  parts.push(make("article", { className: "answer" }, head, ...answer));
  return parts;
}
