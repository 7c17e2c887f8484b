//! The TypeScript client's generated files: ES modules and their declarations, written directly, so that nothing has to
//! be compiled to publish it.

use std::fmt::Write as _;

use super::Generated;
use super::model::{Action, Field, Kind, Model};
use super::text::{camel, wrapped};

const NOTE: &str = "// Generated from the catalog by `make clients`; do not edit.\n";
const WIDTH: usize = 110;

/// The files of this client.
pub fn files(model: &Model) -> Vec<Generated> {
    let place = |path, content| Generated { path, content };
    vec![
        place("typescript/dist/catalog.js", catalog(model)),
        place("typescript/dist/catalog.d.ts", catalog_types(model)),
        place("typescript/dist/actions.js", actions(model)),
        place("typescript/dist/actions.d.ts", action_types(model)),
    ]
}

fn catalog(model: &Model) -> String {
    let codes: Vec<String> = model
        .codes
        .iter()
        .map(|code| format!("  \"{code}\",\n"))
        .collect();
    let mut out = format!(
        "{NOTE}\nexport const errorCodes = Object.freeze([\n{}]);\n\nexport const timeLimitsS = Object.freeze({{\n",
        codes.concat()
    );
    for action in &model.actions {
        let _ = writeln!(out, "  \"{}\": {},", action.name, action.time_limit_s);
    }
    out.push_str("});\n");
    out
}

fn catalog_types(model: &Model) -> String {
    let codes: Vec<String> = model
        .codes
        .iter()
        .map(|code| format!("\n  | \"{code}\""))
        .collect();
    let names: Vec<String> = model
        .actions
        .iter()
        .map(|action| format!("\n  | \"{}\"", action.name))
        .collect();
    format!(
        "{NOTE}\n/** Why the agent said no. */\nexport type ErrorCode ={};\n\n/** Every action of the catalog. */\n\
         export type ActionName ={};\n\n/** Every code that an answer may carry. */\nexport const errorCodes: readonly ErrorCode[];\n\n\
         /** The longest that each action may run, in seconds. */\nexport const timeLimitsS: Readonly<Record<ActionName, number>>;\n",
        codes.concat(),
        names.concat()
    )
}

fn actions(model: &Model) -> String {
    let mut out = format!("{NOTE}\nimport {{ invoke }} from \"./transport.js\";\n");
    for action in &model.actions {
        let mut arguments: Vec<String> = Vec::new();
        let mut fields: Vec<String> = Vec::new();
        for param in &action.params {
            let argument = identifier(&param.name);
            fields.push(if argument == param.name {
                argument.clone()
            } else {
                format!("{}: {argument}", param.name)
            });
            arguments.push(argument);
        }
        arguments.push("callOptions".to_owned());
        let fields = if fields.is_empty() {
            "{}".to_owned()
        } else {
            format!("{{ {} }}", fields.join(", "))
        };
        let _ = write!(
            out,
            "\nexport function {}({}) {{\n  return invoke(\"{}\", {fields}, callOptions);\n}}\n",
            identifier(action.name),
            arguments.join(", "),
            action.name
        );
    }
    out
}

fn action_types(model: &Model) -> String {
    let mut out =
        format!("{NOTE}\nimport type {{ CallOptions, Reply }} from \"./transport.js\";\n");
    for record in &model.records {
        let _ = write!(out, "\nexport interface {} {{\n", record.name);
        fields(&mut out, &record.fields);
        out.push_str("}\n");
    }
    for action in model
        .actions
        .iter()
        .filter(|action| !action.returns.is_empty())
    {
        let _ = write!(
            out,
            "\nexport interface {} extends Reply {{\n",
            action.reply()
        );
        fields(&mut out, &action.returns);
        out.push_str("}\n");
    }
    for action in &model.actions {
        function(&mut out, action);
    }
    out
}

fn fields(out: &mut String, fields: &[Field]) {
    for field in fields {
        if !field.summary.is_empty() {
            let _ = writeln!(out, "  /** {} */", comment(&field.summary));
        }
        let name = if is_identifier(&field.name) {
            field.name.clone()
        } else {
            format!("\"{}\"", field.name)
        };
        let mark = if field.required { "" } else { "?" };
        let _ = writeln!(out, "  {name}{mark}: {};", annotation(&field.kind));
    }
}

fn function(out: &mut String, action: &Action) {
    out.push_str("\n/**\n");
    for line in wrapped(&comment(&action.summary), WIDTH) {
        let _ = writeln!(out, " * {line}");
    }
    if action.read_only {
        out.push_str(" * Changes nothing.\n");
    }
    if !action.params.is_empty() {
        out.push_str(" *\n");
    }
    for param in &action.params {
        let default = param
            .default
            .as_ref()
            .map_or_else(String::new, |default| format!(" Without it `{default}`."));
        let text = comment(&format!("{}{default}", param.summary));
        let text = format!("@param {} {text}", identifier(&param.name));
        for line in wrapped(&text, WIDTH) {
            let _ = writeln!(out, " * {line}");
        }
    }
    out.push_str(" */\n");
    let last_required = action.params.iter().rposition(|param| param.required);
    let mut arguments: Vec<String> = Vec::new();
    for (number, param) in action.params.iter().enumerate() {
        let name = identifier(&param.name);
        let kind = annotation(&param.kind);
        arguments.push(if param.required {
            format!("{name}: {kind}")
        } else if last_required.is_some_and(|last| number < last) {
            format!("{name}: {kind} | undefined")
        } else {
            format!("{name}?: {kind}")
        });
    }
    arguments.push("callOptions?: CallOptions".to_owned());
    let _ = writeln!(
        out,
        "export function {}({}): Promise<{}>;",
        identifier(action.name),
        arguments.join(", "),
        action.reply()
    );
}

/// Text that cannot end its comment.
fn comment(text: &str) -> String {
    text.replace("*/", "*\u{200b}/")
}

fn annotation(kind: &Kind) -> String {
    match kind {
        Kind::Text => "string".to_owned(),
        Kind::Integer | Kind::Number => "number".to_owned(),
        Kind::Flag => "boolean".to_owned(),
        Kind::Choice(values) => {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            values.join(" | ")
        }
        Kind::List(inner) => match **inner {
            Kind::Either(_) | Kind::Choice(_) => format!("readonly ({})[]", annotation(inner)),
            // `readonly` binds to the whole type behind it.
            Kind::List(_) => format!("readonly ({})[]", annotation(inner)),
            _ => format!("readonly {}[]", annotation(inner)),
        },
        Kind::Map(inner) => format!("Readonly<Record<string, {}>>", annotation(inner)),
        Kind::Record(name) => name.clone(),
        Kind::Either(kinds) => {
            let kinds: Vec<String> = kinds.iter().map(annotation).collect();
            kinds.join(" | ")
        }
        Kind::Any => "unknown".to_owned(),
    }
}

/// A name as JavaScript can have it.
fn identifier(name: &str) -> String {
    let name = camel(name);
    if is_identifier(&name) {
        name
    } else {
        format!("{name}_")
    }
}

fn is_identifier(name: &str) -> bool {
    const RESERVED: &[&str] = &[
        "arguments",
        "await",
        "break",
        "case",
        "catch",
        "class",
        "const",
        "continue",
        "debugger",
        "default",
        "delete",
        "do",
        "else",
        "enum",
        "eval",
        "export",
        "extends",
        "false",
        "finally",
        "for",
        "function",
        "if",
        "implements",
        "import",
        "in",
        "instanceof",
        "interface",
        "let",
        "new",
        "null",
        "package",
        "private",
        "protected",
        "public",
        "return",
        "static",
        "super",
        "switch",
        "this",
        "throw",
        "true",
        "try",
        "typeof",
        "var",
        "void",
        "while",
        "with",
        "yield",
    ];
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !RESERVED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_signatures_that_others_rely_on_stay_as_they_are() {
        let types = action_types(&Model::of_catalog());
        for signature in [
            "export function iptablesOpen(port: number, proto: \"tcp\" | \"udp\" | undefined, comment: string, source?: string, callOptions?: CallOptions): Promise<Reply>;",
            "export function generateWallet(name: string, callOptions?: CallOptions): Promise<GenerateWalletReply>;",
        ] {
            assert!(types.contains(signature), "{signature} is gone");
        }
    }

    #[test]
    fn no_parameter_hides_what_a_call_takes() {
        for action in Model::of_catalog().actions {
            assert!(
                action
                    .params
                    .iter()
                    .all(|param| identifier(&param.name) != "callOptions"),
                "{}",
                action.name
            );
        }
    }

    #[test]
    fn no_text_of_the_catalog_can_end_a_comment() {
        assert!(!comment("a */ b").contains("*/"));
    }
}
