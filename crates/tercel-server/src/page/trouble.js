// What a person is told when something fails, and the ways out.
import { h } from "./dom.js";
import { NUMBERS } from "./settings.js";

const TOO_LONG = ["context_overflow", "prompt_too_long", "input_too_large"];

/** The title, the server's own words, and buttons for a problem. */
export function waysOut(problem, actions) {
  const retry = button("Try again", actions.retry, "primary");
  const text = problem.message;
  if (problem.status === 401 || problem.status === 403) {
    const key = button("Enter a key", actions.askKey, "primary");
    return { title: "This server wants a key", text, buttons: [key, button("Try again", actions.retry)] };
  }
  if (problem.status === 429) {
    countDown(retry, problem.retryAfter);
    return { title: busy(problem.retryAfter), text, buttons: [retry] };
  }
  if (problem.status === 0) {
    return { title: text, text: "It may have stopped, or the network is away. Nothing is lost.", buttons: [retry] };
  }
  if (problem.status === 503 && problem.retryAfter > 0) countDown(retry, problem.retryAfter);
  if (TOO_LONG.includes(problem.code)) {
    return { title: "This chat is too long for the model", text, buttons: [button("New chat", actions.newChat, "primary"), retry] };
  }
  if (NUMBERS.some(({ name }) => name === problem.param)) {
    return { title: "A setting cannot be used", text, buttons: [button("Settings", actions.openSettings, "primary"), retry] };
  }
  return { title: "There is no reply", text, buttons: [retry] };
}

function busy(seconds) {
  return seconds > 0 ? `The server is busy; try again in ${seconds} s` : "The server is busy";
}

function button(text, action, kind = "plain") {
  return h("button", { type: "button", class: `${kind} small`, onclick: action }, text);
}

/** Lets the button rest until it is worth a try. */
function countDown(node, seconds) {
  const text = node.textContent;
  const end = performance.now() + seconds * 1000;
  const show = () => {
    const left = Math.ceil((end - performance.now()) / 1000);
    node.disabled = left > 0;
    node.textContent = left > 0 ? `${text} in ${left} s` : text;
    return left > 0;
  };
  if (!show()) return;
  const timer = setInterval(() => show() || clearInterval(timer), 250);
}
