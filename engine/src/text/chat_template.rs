//! A model's chat template: Jinja as `transformers` sets it up, with bounds.
//!
//! Templates come with a model's files, so each rendering has a limit of instructions and of output. What
//! no limit covers is one expression that doubles a string over and over; take templates from where you
//! take weights.

use std::{collections::BTreeMap, io, time::SystemTime};

use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig};

use super::{ChatMessage, strftime};
use crate::error::TextError;

/// Longest template source taken.
const MAX_SOURCE: usize = 1 << 20;
/// Longest prompt a template may render.
const MAX_OUTPUT: usize = 64 << 20;
/// Instructions one rendering may take; a long conversation needs some ten thousands.
const FUEL: u64 = 5_000_000;
const NAME: &str = "chat_template";

/// The spellings a template may use, such as `bos_token`.
pub(super) type SpecialSpellings = BTreeMap<&'static str, String>;

/// A compiled template.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    special: SpecialSpellings,
}

impl ChatTemplate {
    /// Compiles a template.
    pub(super) fn new(source: String, special: SpecialSpellings) -> Result<Self, String> {
        if source.len() > MAX_SOURCE {
            return Err(format!("the chat template has {} bytes; {MAX_SOURCE} are possible", source.len()));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_template_owned(NAME, source).map_err(|error| format!("chat template: {error}"))?;
        Ok(Self { environment, special })
    }

    /// The prompt of a conversation that the assistant is to continue.
    pub(super) fn render(&self, messages: &[ChatMessage]) -> Result<String, TextError> {
        self.try_render(messages).map_err(|error| TextError::Template(sentence(&error)))
    }

    fn try_render(&self, messages: &[ChatMessage]) -> Result<String, Error> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        let special: BTreeMap<&str, Value> =
            self.special.iter().map(|(name, spelling)| (*name, Value::from(spelling.as_str()))).collect();
        // As transformers: no tools and no documents are `none`, which templates tell from undefined.
        let context = context! {
            messages,
            tools => (),
            documents => (),
            add_generation_prompt => true,
            ..Value::from(special)
        };
        let mut output = Bounded(Vec::new());
        self.environment.get_template(NAME)?.render_captured_to(context, &mut output)?;
        String::from_utf8(output.0)
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, "not UTF-8").with_source(error))
    }
}

/// A writer that refuses more than [`MAX_OUTPUT`] bytes.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other(format!("the prompt would be longer than {MAX_OUTPUT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    strftime::format(SystemTime::now(), format).map_err(|reason| Error::new(ErrorKind::InvalidOperation, reason))
}

/// What went wrong, without the kind of error that a template's own words do not need.
fn sentence(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.detail().map_or_else(|| error.to_string(), str::to_owned),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests panic on failure")]
mod tests {
    use super::*;

    const MISTRAL: &str = "{{ bos_token }}{% for message in messages %}\
        {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
        {{ raise_exception('Conversation roles must alternate') }}{% endif %}\
        {% if message['role'] == 'user' %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}\
        {% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}";

    fn render(source: &str, messages: &[(&str, &str)]) -> Result<String, TextError> {
        let special = BTreeMap::from([("bos_token", "<s>".to_owned()), ("eos_token", "</s>".to_owned())]);
        let messages: Vec<_> = messages
            .iter()
            .map(|(role, content)| ChatMessage { role: (*role).to_owned(), content: (*content).to_owned() })
            .collect();
        ChatTemplate::new(source.to_owned(), special).unwrap().render(&messages)
    }

    fn fails(source: &str, with: &str) {
        let error = render(source, &[("user", "Hi")]).unwrap_err().to_string();
        assert!(error.contains(with), "{error}");
    }

    #[test]
    fn a_conversation_is_rendered() {
        let conversation = [("user", " Hi\n"), ("assistant", "Hello"), ("user", "<b>\"&'\u{0}é")];
        let expected = "<s>[INST] Hi [/INST]Hello</s>[INST] <b>\"&'\u{0}é [/INST]";
        assert_eq!(render(MISTRAL, &conversation).unwrap(), expected);
    }

    #[test]
    fn what_a_template_refuses_is_an_error_in_its_words() {
        let error = render(MISTRAL, &[("assistant", "Hello")]).unwrap_err();
        assert_eq!(error, TextError::Template("Conversation roles must alternate".to_owned()));
    }

    #[test]
    fn blocks_leave_no_space_behind() {
        let source = "{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\n";
        assert_eq!(render(source, &[("user", "Hi")]).unwrap(), "Hi\n");
    }

    #[test]
    fn absent_values_are_as_in_transformers() {
        let source = "{{ tools is none }} {{ documents is defined }} {{ custom is defined }} {{ pad_token }}\
            {% if add_generation_prompt %}go{% endif %}";
        assert_eq!(render(source, &[]).unwrap(), "True True False go");
    }

    #[test]
    fn the_date_is_known() {
        let year: u32 = render("{{ strftime_now('%Y') }}", &[]).unwrap().parse().unwrap();
        assert!(year >= 2024, "{year}");
        fails("{{ strftime_now('%Q') }}", "%Q");
    }

    #[test]
    fn a_template_cannot_run_for_ever_or_fill_memory() {
        let nested = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
        fails(nested, "fuel");
        let long = "{% set s = 'x' * 10000 %}{% for a in range(9999) %}{{ s }}{% endfor %}";
        fails(long, "longer than");
        fails("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion");
    }

    #[test]
    fn a_broken_template_is_an_error() {
        let result = |source: &str| ChatTemplate::new(source.to_owned(), BTreeMap::new()).err();
        assert!(result("{% if %}").unwrap().contains("chat template"));
        assert!(result(&"{{ ".repeat(5)).is_some());
        assert!(result(&format!("{{{{ {}1 }}}}", "(".repeat(100_000))).is_some());
        assert!(result(&"x".repeat(MAX_SOURCE + 1)).unwrap().contains("bytes"));
    }
}
