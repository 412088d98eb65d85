"use strict";
const specs = JSON.parse(document.getElementById("specs").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

// Width in pixels: legends of narrow charts stand in two columns.
function theme(width) {
  const style = getComputedStyle(document.documentElement);
  const [text, muted, line] = ["--text", "--muted", "--line"].map((name) => style.getPropertyValue(name).trim());
  const font = getComputedStyle(document.body).fontFamily;
  return {
    background: "transparent", font, aria: false, padding: 2,
    view: { stroke: null },
    axis: {
      labelColor: muted, titleColor: muted, gridColor: line, domainColor: line, tickColor: line,
      labelFontSize: 11, titleFontSize: 11, titleFontWeight: 400, titlePadding: 8, tickSize: 4, labelPadding: 5,
    },
    axisY: { domain: false, ticks: false, tickCount: 5 },
    legend: { orient: "bottom", labelColor: text, labelFontSize: 12, symbolType: "square", symbolSize: 70, offset: 6, columns: width < 420 ? 2 : 0 },
    text: { color: muted }, style: { value: { fill: text } },
  };
}

// ast: expressions are interpreted, so the page needs no eval and its policy can forbid it.
function draw() {
  const options = {
    mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  };
  for (const [id, spec] of Object.entries(specs)) {
    const place = document.getElementById(id);
    // Vega makes the place a document of shapes; to a reader it is one picture with a name.
    vegaEmbed(place, spec, { ...options, config: theme(place.clientWidth) }).then(() => {
      place.setAttribute("role", "img");
      place.removeAttribute("aria-roledescription");
    });
  }
}

function filter() {
  const query = document.getElementById("query").value.toLowerCase();
  const verdict = document.getElementById("verdict").value;
  let matches = 0;
  for (const entry of document.querySelectorAll("#trajectories details")) {
    const isMatch = (!verdict || entry.dataset.verdict === verdict) && entry.textContent.toLowerCase().includes(query);
    entry.hidden = !isMatch;
    matches += isMatch;
  }
  document.getElementById("matches").textContent = `${matches} shown`;
}

draw();
dark.addEventListener("change", draw);
const form = document.getElementById("filter");
if (form) {
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
}
