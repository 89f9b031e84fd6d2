//! Reads the text form `.emir`; the grammar is described where it is [printed](crate::Graph).

use std::borrow::Cow;

use crate::{
    DType, Diagnostic, Dim, Graph, Result, Shape, TensorType, Value,
    ops::{AttributeValue, Op, from_text},
    tensor_type::list,
    weights::{Digest, Weight},
};

/// Parses a graph. Its weights are declared by type and digest, without elements.
///
/// # Errors
/// The first line that is not understood, or whose node does not fit its operands.
pub fn parse(text: &str) -> Result<Graph> {
    let mut parser = Parser::default();
    let lines = statements(text);
    let lines: Vec<_> = lines.iter().map(|(n, line)| (*n, Cursor(line))).collect();
    // Nodes are typed as they are read, so the weights at the end are read first.
    let split = lines.iter().position(|(_, line)| line.0 == "weights {");
    let (body, weights) = lines.split_at(split.unwrap_or(lines.len()));
    parser.state = State::Inside;
    for (number, line) in weights.iter().skip(1) {
        let read = parser.weight_line(*line);
        read.map_err(|e| e.at(format!("line {number}")))?;
    }
    if split.is_some() && parser.state != State::Done {
        return Err(Diagnostic::input("the text ends inside its weights"));
    }
    parser.state = State::Before;
    for (number, line) in body {
        let read = parser.body_line(*line);
        read.map_err(|e| e.at(format!("line {number}")))?;
    }
    match parser.state {
        State::Before => Err(Diagnostic::input("the text holds no graph")),
        State::Inside => Err(Diagnostic::input("the text ends inside its graph")),
        State::Done => Ok(parser.graph),
    }
}

/// The statements of a text with the numbers of their first lines, without comments. A statement
/// is a line, or as many as it takes to close its square brackets.
fn statements(text: &str) -> Vec<(usize, Cow<'_, str>)> {
    let mut statements: Vec<(usize, Cow<str>)> = Vec::new();
    let mut open = 0;
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default().trim();
        if code.is_empty() {
            continue;
        }
        match statements.last_mut() {
            Some((_, statement)) if open > 0 => {
                let statement = statement.to_mut();
                statement.push(' ');
                statement.push_str(code);
            }
            _ => statements.push((number + 1, code.into())),
        }
        for c in code.chars() {
            match c {
                '[' => open += 1,
                ']' if open > 0 => open -= 1,
                _ => {}
            }
        }
    }
    statements
}

/// Where in a pair of braces the parser is.
#[derive(Default, PartialEq)]
enum State {
    #[default]
    Before,
    Inside,
    Done,
}

struct Parser {
    graph: Graph,
    state: State,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            graph: Graph::new(""),
            state: State::Before,
        }
    }
}

impl Parser {
    fn weight_line(&mut self, mut line: Cursor) -> Result<()> {
        if self.state == State::Done {
            return Err(unexpected("the end of the text", line.0));
        }
        if line.eat("}") {
            self.state = State::Done;
            return line.end();
        }
        line.expect("@")?;
        let key = line.name()?;
        line.expect(":")?;
        let ty = line.tensor_type()?;
        let digest = (!line.0.is_empty()).then(|| line.digest()).transpose()?;
        line.end()?;
        if self.graph.weights.contains(key) {
            return Err(Diagnostic::input("a weight is declared twice").key(key));
        }
        self.graph.weights.insert(key, Weight::declared(ty, digest));
        Ok(())
    }

    fn body_line(&mut self, mut line: Cursor) -> Result<()> {
        match self.state {
            State::Before => {
                line.keyword("graph")?;
                self.graph.name = line.name()?.to_string();
                line.expect("{")?;
                self.state = State::Inside;
                line.end()
            }
            State::Inside if line.eat("}") => {
                self.state = State::Done;
                line.end()
            }
            State::Inside if line.0.starts_with("return") => {
                line.keyword("return")?;
                let name = line.name()?;
                line.expect("=")?;
                let value = self.value(&mut line)?;
                self.graph.add_output(name, value);
                line.end()
            }
            State::Inside => self.node_line(line),
            State::Done => Err(unexpected("`weights {` or the end of the text", line.0)),
        }
    }

    fn node_line(&mut self, mut line: Cursor) -> Result<()> {
        line.expect("%")?;
        let name = line.name()?;
        line.expect("=")?;
        let mnemonic = line.name()?;
        let mut operands = Vec::new();
        if line.eat("(") {
            operands = line.list(")", |line| self.value(line))?;
        }
        let mut slots = Vec::new();
        if line.eat("[") {
            slots = line.list("]", |line| {
                let slot = line.name()?;
                Ok((slot, line.key(name, slot)?))
            })?;
        }
        let mut attributes = Vec::new();
        while !line.eat(":") {
            let attribute = line.name()?.to_string();
            line.expect("=")?;
            attributes.push((attribute, line.attribute_value()?));
        }
        let mut types = vec![line.tensor_type()?];
        while line.eat(",") {
            types.push(line.tensor_type()?);
        }
        line.end()?;
        let fault = |why| Diagnostic::input(why).node(name);
        let op = from_text(mnemonic, attributes).map_err(fault)?;
        if op == Op::Input {
            if types.len() != 1 || !operands.is_empty() || !slots.is_empty() {
                return Err(fault(
                    "an input has one type, no operands and no weights".into(),
                ));
            }
            self.graph.add_input(name, types.swap_remove(0))?;
            return Ok(());
        }
        let slots: Vec<_> = slots
            .iter()
            .map(|(slot, key)| (*slot, key.as_str()))
            .collect();
        let id = self.graph.add(name, op, &operands, &slots)?;
        let inferred = &self.graph.node(id).outputs;
        if *inferred != types {
            let (declared, inferred) = (list(&types), list(inferred));
            return Err(fault(format!(
                "declares {declared} but computes {inferred}"
            )));
        }
        Ok(())
    }

    fn value(&self, line: &mut Cursor) -> Result<Value> {
        line.expect("%")?;
        let name = line.name()?;
        let output = if line.eat("#") { line.int()? } else { 0 };
        let node = self.graph.find(name);
        let node = node.filter(|&node| output < self.graph.node(node).outputs.len());
        let node = node.ok_or_else(|| {
            let output = if output > 0 {
                format!("#{output}")
            } else {
                Default::default()
            };
            Diagnostic::input(format!("no value `%{name}{output}` is defined above"))
        })?;
        Ok(Value { node, output })
    }
}

/// The unread rest of a statement.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a str);

fn unexpected(wanted: &str, found: &str) -> Box<Diagnostic> {
    let found: String = found.chars().take(20).collect();
    Diagnostic::input(format!("expected {wanted}, found `{found}`"))
}

impl<'a> Cursor<'a> {
    fn eat(&mut self, token: &str) -> bool {
        let rest = self.0.strip_prefix(token);
        if let Some(rest) = rest {
            self.0 = rest.trim_start();
        }
        rest.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) {
            return Ok(());
        }
        Err(unexpected(&format!("`{token}`"), self.0))
    }

    /// A word that is not just the beginning of a name.
    fn keyword(&mut self, word: &str) -> Result<()> {
        let mut rest = *self;
        if rest.name().is_ok_and(|name| name == word) {
            *self = rest;
            return Ok(());
        }
        Err(unexpected(&format!("`{word}`"), self.0))
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(unexpected("the end of the line", self.0))
    }

    fn take_while(&mut self, wanted: &str, keep: impl Fn(char) -> bool) -> Result<&'a str> {
        let end = self.0.find(|c| !keep(c)).unwrap_or(self.0.len());
        if end == 0 {
            return Err(unexpected(wanted, self.0));
        }
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest.trim_start();
        Ok(taken)
    }

    fn name(&mut self) -> Result<&'a str> {
        self.take_while("a name", |c| {
            c.is_ascii_alphanumeric() || "._-~".contains(c)
        })
    }

    /// The key of the weight in a slot of a node: nothing, `=.rest` or `=@key`.
    fn key(&mut self, node: &str, slot: &str) -> Result<String> {
        if !self.eat("=") {
            return Ok(format!("{node}.{slot}"));
        }
        if self.0.starts_with('.') {
            return Ok(format!("{node}{}", self.name()?));
        }
        if self.eat("@") {
            return Ok(self.name()?.to_string());
        }
        Err(unexpected("`.` or `@` and a key", self.0))
    }

    fn int(&mut self) -> Result<usize> {
        let digits = self.take_while("a number", |c| c.is_ascii_digit())?;
        digits
            .parse()
            .map_err(|_| unexpected("a smaller number", digits))
    }

    fn list<T>(&mut self, close: &str, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        loop {
            items.push(item(self)?);
            if self.eat(close) {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }

    fn tensor_type(&mut self) -> Result<TensorType> {
        let name = self.take_while("a type", |c| c.is_ascii_alphanumeric() || c == '_')?;
        let dtype: DType = name.parse().map_err(Diagnostic::input)?;
        self.expect("[")?;
        let mut dims = Vec::new();
        if !self.eat("]") {
            dims = self.list("]", |line| {
                let dim = line.take_while("a dimension", |c| c.is_ascii_alphanumeric())?;
                dim.parse::<Dim>().map_err(Diagnostic::input)
            })?;
        }
        let shape = Shape(dims);
        Ok(TensorType { dtype, shape })
    }

    fn digest(&mut self) -> Result<Digest> {
        let hex = self.take_while("a digest", |c| c.is_ascii_hexdigit())?;
        let byte = |i: usize| hex.get(2 * i..2 * i + 2).map(|h| u8::from_str_radix(h, 16));
        let mut digest = [0; 6];
        for (i, slot) in digest.iter_mut().enumerate() {
            match byte(i) {
                Some(Ok(byte)) if hex.len() == 12 => *slot = byte,
                _ => return Err(unexpected("a digest of 12 hexadecimal digits", hex)),
            }
        }
        Ok(Digest(digest))
    }

    fn attribute_value(&mut self) -> Result<AttributeValue> {
        let text = self.take_while("a value", |c| {
            c.is_ascii_alphanumeric() || "+-._".contains(c)
        })?;
        if let Ok(n) = text.parse() {
            return Ok(AttributeValue::Int(n));
        }
        let ints: Result<Vec<_>, _> = text.split('x').map(str::parse).collect();
        if let Ok(ints) = ints {
            return Ok(AttributeValue::Ints(ints));
        }
        match text.parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(AttributeValue::Float(x)),
            _ => Ok(AttributeValue::Word(text.to_string())),
        }
    }
}
