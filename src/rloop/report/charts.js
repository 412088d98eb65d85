"use strict";
// How charts look and are drawn, in the self-contained pages and in `rloop view`.
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

// Vega puts a label of its own in the place of the one that says what is seen, and makes the
// element a document of shapes; to a reader it is one picture with a name.
// ast: expressions are interpreted, so the page needs no eval and its policy can forbid it.
async function embed(element, spec) {
  const label = element.getAttribute("aria-label");
  await window.vegaEmbed(element, spec, {
    mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false,
    tooltip: { disableDefaultStyle: true }, config: theme(element.clientWidth),
  });
  element.setAttribute("role", "img");
  element.removeAttribute("aria-roledescription");
  if (label) element.setAttribute("aria-label", label);
}
