//! The reference page of the checks, Markdown.

use super::{ALLOW, invariants};

/// What docs/kubernetes-checks.md holds.
pub fn page() -> String {
    let mut page = format!(
        "<!-- Made from k8s/src/lint/rules by `UPDATE=1 cargo test -p k8s checks`. -->\n\
         # What `check --k8s` looks for\n\n{INTRODUCTION}\n\
         ## Exceptions\n\n{}\n## The checks\n\n\
         | id | finds | because | says who |\n| --- | --- | --- | --- |\n",
        EXCEPTIONS.replace("ALLOW", ALLOW)
    );
    for one in invariants() {
        let cell = |text: &str| text.replace('|', "\\|");
        page.push_str(&format!(
            "| `{}` | {} | {} | [{}]({}) |\n",
            one.id,
            cell(one.catches),
            cell(one.why),
            cell(one.source.title),
            one.source.url
        ));
    }
    page
}

const INTRODUCTION: &str = "\
```sh
switchyard check --config config/switchyard.toml --k8s k8s
```

checks the table, and then the manifests in the folder, which is what `switchyard render --out` writes (`base/`,
`components/`, `overlays/`) or a base alone.

**Are they the table's?** Each file that the table asks for must be there (`missing`) and be, byte by byte, what would be rendered
(`different`, shown at the first place), and no rendered file may be there that it asks for no more (`leftover`). `switchyard
render` puts all three right. Files that don't begin with `# Made from the table by` are yours: they are no difference.

**Are they sound?** Every whole object in the folder is judged by the table below, whoever wrote it: in `.yaml`, `.yml` and
`.json` files. Passed over are patches (what a Kustomization names as one, and pods without images), documents without kind
or name, and, where there is a `base/`, other folders beside it than `components/` and `overlays/`. A file that is no YAML is a
finding, `unreadable`. What is selected may be anywhere in the folder; doubles count within one set (the base, one component,
one overlay). Overlays aren't built: a port that a patch adds is there, but what only a patch says isn't judged.

Where a check speaks of an agent or the gateway, it is about their Deployments as the table names them. The others hold
for everything.
";

const EXCEPTIONS: &str = "\
What is deliberate in a file of yours says so on the object where the finding is, with the ids:

```yaml
metadata:
  annotations:
    ALLOW: \"writable-root,runs-as-root\"
```

A rendered file has no exceptions: what is wrong there is to be put right in the table.
";
