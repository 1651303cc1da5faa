// Questions to the server. Each carries the token of this page; an answer that is an error says what to do.

const token = document.querySelector('meta[name="token"]').content;

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(path, { method = "GET", body, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method, signal,
      headers: { "x-nexus-token": token, ...(body ? { "content-type": "application/json" } : {}) },
      body: body && JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is nexus annotate still running?", 0);
  }
  if (!response.ok) throw new Refused(await reason(response), response.status);
  return response;
}

async function reason(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error;
  } catch {
    return text.trim() || `The server answers ${response.status}.`;
  }
}

const json = async (path, options) => (await ask(path, options)).json();

export const project = () => json("/api/project");
export const marks = (number, signal) => json(`/api/images/${number}`, { signal });
export const picture = async (number, signal) => (await ask(`/api/images/${number}/picture`, { signal })).blob();
export const ready = (number, signal) => json(`/api/images/${number}/ready`, { signal });
export const mask = (number, body, signal) => json(`/api/images/${number}/mask`, { method: "POST", body, signal });
export const follow = (number, body) => json(`/api/images/${number}/follow`, { method: "POST", body });
export const save = (number, body) => json(`/api/images/${number}`, { method: "PUT", body });
export const classes = (body) => json("/api/classes", { method: "PUT", body });
export const exported = (format) => json("/api/export", { method: "POST", body: { format } });
