//! Reads the text form `.emir`; the grammar is described where it is [printed](crate::Graph).

use crate::{
    DType, Diagnostic, Dim, Graph, Result, Shape, TensorType, Value,
    ops::{AttributeValue, from_text},
    weights::{Digest, Weight},
};

/// Parses a graph. Its weights are declared by type and digest, without elements.
///
/// # Errors
/// The first line that is not understood, or whose node does not fit its operands.
pub fn parse(text: &str) -> Result<Graph> {
    let mut parser = Parser::default();
    let mut lines: Vec<(usize, Cursor)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default().trim();
        if !code.is_empty() {
            lines.push((number + 1, Cursor(code)));
        }
    }
    // Nodes are typed as they are read, so the weights at the end are read first.
    let split = lines.iter().position(|(_, line)| line.0 == "weights {");
    let (body, weights) = lines.split_at(split.unwrap_or(lines.len()));
    for (number, line) in weights.iter().skip(1) {
        let read = parser.weight_line(*line);
        read.map_err(|e| e.at(format!("line {number}")))?;
    }
    for (number, line) in body {
        let read = parser.body_line(*line);
        read.map_err(|e| e.at(format!("line {number}")))?;
    }
    match parser.state {
        State::Done => Ok(parser.graph),
        _ => Err(Diagnostic::input("the text ends before its graph does")),
    }
}

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
        if line.0 == "}" {
            return Ok(());
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
                line.expect("graph")?;
                self.graph.name = line.name()?.to_string();
                line.expect("{")?;
                self.state = State::Inside;
                line.end()
            }
            State::Inside if line.eat("}") => {
                self.state = State::Done;
                line.end()
            }
            State::Inside if line.eat("return") => {
                let name = line.name()?;
                line.expect("=")?;
                let value = self.value(&mut line)?;
                self.graph.add_output(name, value);
                line.end()
            }
            State::Inside => self.node_line(line),
            State::Done => Err(unexpected("the end of the text", line.0)),
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
                let key = if line.eat("=") {
                    line.expect("@")?;
                    line.name()?.to_string()
                } else {
                    format!("{name}.{slot}")
                };
                Ok((slot, key))
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
        if mnemonic == "input" {
            self.graph.add_input(name, types.remove(0))?;
            return Ok(());
        }
        let op =
            from_text(mnemonic, attributes).map_err(|why| Diagnostic::input(why).node(name))?;
        let slots: Vec<_> = slots
            .iter()
            .map(|(slot, key)| (*slot, key.as_str()))
            .collect();
        let id = self.graph.add(name, op, &operands, &slots)?;
        let inferred = &self.graph.node(id).outputs;
        if *inferred != types {
            let list = |types: &[TensorType]| {
                let types: Vec<_> = types.iter().map(ToString::to_string).collect();
                types.join(", ")
            };
            let (declared, inferred) = (list(&types), list(inferred));
            let message = format!("declares {declared} but computes {inferred}");
            return Err(Diagnostic::input(message).node(name));
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
            Diagnostic::input(format!(
                "no value `%{name}#{output}` has been defined above"
            ))
        })?;
        Ok(Value { node, output })
    }
}

/// The unread rest of a line.
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
        let text = self.take_while("a value", |c| !c.is_whitespace())?;
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
