// How much of the model's context the conversation takes.
import { h } from "./dom.js";

/** Shows used and whole tokens; without a known length the used ones alone. */
export function showMeter(node, used, length) {
  node.hidden = used === 0;
  if (used === 0) return;
  const share = length > 0 ? Math.min(used / length, 1) : 0;
  const usedText = used.toLocaleString("en");
  const whole = length > 0 ? ` / ${length.toLocaleString("en")}` : " tokens";
  const percent = Math.round(share * 100);
  node.classList.toggle("full", share > 0.85);
  node.setAttribute("aria-valuenow", String(used));
  node.setAttribute("aria-valuemax", String(length || used));
  node.title = length > 0 ? `Context: ${usedText}${whole} tokens (${percent} %)` : usedText + whole;
  node.style.setProperty("--share", `${percent}%`);
  const parts = [h("span", {}, usedText, h("b", {}, whole))];
  if (length > 0) parts.unshift(h("i"));
  node.replaceChildren(...parts);
}
