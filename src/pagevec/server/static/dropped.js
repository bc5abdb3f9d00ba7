/** Files out of a drop or an input, with their paths within the folders that they come from. */

/**
 * Return what was dropped. To be called within the drop event, which forgets its items afterwards.
 * @param {DataTransfer} transfer
 * @returns {Promise<{file: File, name: string}[]>}
 */
export async function droppedFiles(transfer) {
  const files = [...transfer.items].filter((item) => item.kind === "file");
  const sources = files.map((item) => ({ entry: item.webkitGetAsEntry(), file: item.getAsFile() }));
  const found = await Promise.all(
    sources.map(({ entry, file }) => (entry ? walk(entry) : [{ file, name: file.name }])),
  );
  return withoutHidden(found.flat());
}

/**
 * Return what was chosen in an input.
 * @param {HTMLInputElement} input
 * @returns {{file: File, name: string}[]}
 */
export function chosenFiles(input) {
  const files = [...input.files];
  input.value = ""; // so that the same file can be chosen again
  return withoutHidden(files.map((file) => ({ file, name: file.webkitRelativePath || file.name })));
}

async function walk(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, name: entry.fullPath.replace(/^\//, "") }];
  }
  const found = [];
  for (const child of await readFolder(entry)) found.push(...(await walk(child)));
  return found;
}

async function readFolder(folder) {
  const reader = folder.createReader();
  const children = [];
  for (;;) {
    // A reader returns a hundred or so at a time, and at last none.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return children.sort((a, b) => a.name.localeCompare(b.name));
    children.push(...some);
  }
}

// Systems keep notes of their own in folders, such as .DS_Store.
const withoutHidden = (files) =>
  files.filter(({ name }) => !name.split("/").some((part) => part.startsWith(".")));
