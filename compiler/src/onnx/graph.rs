//! A graph, from its inputs to its scores. Only what the scores depend on is read: labels, and
//! how they are chosen, play no part.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::node::Node;
use super::proto::{self, NodeMessage, TensorMessage, ValueInfo, decode_all, element};
use super::tensor::Tensor;
use super::value::{Column, Raw, Scores, Value};
use super::{elementwise, layout, linear, tree_tensors, trees};
use crate::reader::ReadError;
use crate::trained::Link;

/// Most operators, constants, inputs or outputs of a graph.
const MAX_ENTRIES: usize = 1 << 14;

/// Most numbers that are moved while operators are folded, over all of them.
const MAX_WORK: usize = 1 << 26;

/// A decoded graph.
pub(super) struct Graph {
    nodes: Vec<Node>,
    constants: HashMap<String, TensorMessage>,
    /// Those that are not constants.
    pub(super) inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
}

/// What the table of nodes of a tree operator tells about who wrote it.
pub(super) struct TreeTable {
    pub(super) is_regressor: bool,
    pub(super) has_base: bool,
    /// Whether all comparisons are `<=`.
    pub(super) at_most: bool,
    /// Whether any node sends missing values to where its condition holds.
    pub(super) tells_missing: bool,
    /// Whether thresholds are written in float32.
    pub(super) thresholds_are_single: bool,
}

/// What the scores of a graph are.
pub(super) struct Answer {
    pub(super) scores: Scores,
    /// Of each column that trees compare: the feature, and whether it is rounded to float32.
    pub(super) compared: Vec<(u32, bool)>,
    /// The first operator that holds a model.
    pub(super) operator: Option<String>,
    /// Whether another output has labels.
    pub(super) has_labels: bool,
}

impl Graph {
    /// Takes a graph apart.
    ///
    /// # Errors
    /// More than [`MAX_ENTRIES`] of anything, and messages that do not decode.
    pub(super) fn new(graph: &proto::Graph) -> Result<Self, ReadError> {
        if !graph.sparse_initializer.is_empty() {
            return Err(ReadError::unsupported("graph", "a sparse constant"));
        }
        let messages: Vec<NodeMessage> = decode_all(&graph.node, MAX_ENTRIES, "node")?;
        let nodes = messages.into_iter().enumerate().map(|(at, node)| Node::new(at, node));
        let nodes = nodes.collect::<Result<_, _>>()?;
        let tensors: Vec<TensorMessage> = decode_all(&graph.initializer, MAX_ENTRIES, "constant")?;
        let constants: HashMap<_, _> =
            tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let mut inputs: Vec<ValueInfo> = decode_all(&graph.input, MAX_ENTRIES, "input")?;
        inputs.retain(|input| !constants.contains_key(&input.name));
        let outputs = decode_all(&graph.output, MAX_ENTRIES, "output")?;
        Ok(Graph { nodes, constants, inputs, outputs })
    }

    /// All operators, in the order of the file.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Of each `TreeEnsembleClassifier` and `TreeEnsembleRegressor`.
    ///
    /// # Errors
    /// Attributes that do not decode.
    pub(super) fn tree_tables(&self) -> Result<Vec<TreeTable>, ReadError> {
        let is_trees = |node: &&Node| {
            matches!(node.operator.as_str(), "TreeEnsembleClassifier" | "TreeEnsembleRegressor")
        };
        let table = |node: &Node| {
            let mut attributes = node.attributes()?;
            let modes = attributes.texts("nodes_modes")?;
            let tracks = attributes.integers("nodes_missing_value_tracks_true");
            Ok(TreeTable {
                is_regressor: node.operator == "TreeEnsembleRegressor",
                has_base: !attributes.either("base_values")?.is_empty(),
                at_most: modes.iter().all(|mode| mode == "BRANCH_LEQ" || mode == "LEAF"),
                tells_missing: tracks.iter().any(|&track| track != 0),
                thresholds_are_single: !attributes.reals("nodes_values").is_empty(),
            })
        };
        self.nodes.iter().filter(is_trees).map(table).collect()
    }

    /// Follows the scores back to the features.
    ///
    /// # Errors
    /// Operators that are not supported on the way, and graphs without an order.
    pub(super) fn answer(&self, features: HashMap<String, Value>) -> Result<Answer, ReadError> {
        let (output, has_labels) = self.scores_output()?;
        let needed = self.needed(output)?;
        let mut walk = Walk { graph: self, values: features, compared: Vec::new(), work: 0 };
        for &position in &needed {
            walk.visit(&self.nodes[position])?;
        }
        let is_model =
            |name: &&String| name.starts_with("TreeEnsemble") || name.starts_with("Linear");
        let operator = needed.iter().map(|&at| &self.nodes[at].operator).find(is_model).cloned();
        match walk.values.remove(output) {
            Some(Value::Scores(scores)) => {
                Ok(Answer { scores, compared: walk.compared, operator, has_labels })
            }
            Some(_) => Err(ReadError::unsupported("graph", format!("output {output:?}"))),
            None => Err(ReadError::malformed("graph", format!("nothing computes {output:?}"))),
        }
    }

    /// Names of `count` classes from where labels are looked up, if there is one such place.
    pub(super) fn looked_up_classes(&self, count: usize) -> Vec<String> {
        let mut found = self.nodes.iter().filter_map(|node| {
            let list = self.constants.get(node.inputs.first()?)?;
            let is_lookup = node.operator == "ArrayFeatureExtractor";
            let tensor = is_lookup.then(|| Tensor::read(list.clone(), &node.place).ok())??;
            match tensor.data {
                super::tensor::Data::Text(names) => Some(names),
                super::tensor::Data::Integer(names) => {
                    Some(names.iter().map(i64::to_string).collect())
                }
                super::tensor::Data::Real(_) => None,
            }
        });
        match (found.next(), found.next()) {
            (Some(names), None) if names.len() == count => names,
            _ => Vec::new(),
        }
    }

    /// The one output that is not a tensor of labels, and whether there are labels beside it.
    fn scores_output(&self) -> Result<(&str, bool), ReadError> {
        let is_label = |output: &&ValueInfo| {
            let tensor = output.kind.as_ref().and_then(|kind| kind.tensor.as_ref());
            tensor.is_some_and(|tensor| {
                matches!(tensor.elem_type, element::INT64 | element::INT32 | element::STRING)
            })
        };
        let mut rest = self.outputs.iter().filter(|output| !is_label(output));
        match (rest.next(), rest.next()) {
            (Some(scores), None) => Ok((&scores.name, self.outputs.len() > 1)),
            (None, _) => Err(ReadError::unsupported("graph", "a model of labels without scores")),
            (Some(one), Some(other)) => {
                if let Some(whole) = self.whole_of_columns(is_label) {
                    return Ok((whole, true));
                }
                let what = format!("choosing between outputs {:?} and {:?}", one.name, other.name);
                Err(ReadError::unsupported("graph", what))
            }
        }
    }

    /// The tensor of which the outputs that are no labels are the columns, in their order and
    /// complete: what `zipmap="columns"` of skl2onnx writes.
    fn whole_of_columns(&self, is_label: impl Fn(&&ValueInfo) -> bool) -> Option<&str> {
        let mut whole = None;
        let producer = |name: &str| {
            self.nodes.iter().find(|node| node.outputs.first().is_some_and(|output| output == name))
        };
        for (position, output) in self.outputs.iter().filter(|output| !is_label(output)).enumerate()
        {
            let mut node = producer(&output.name)?;
            while matches!(node.operator.as_str(), "Reshape" | "Identity") {
                node = producer(node.inputs.first()?)?;
            }
            let start = node.inputs.get(1).and_then(|name| self.constants.get(name))?;
            let start = Tensor::read(start.clone(), &node.place).ok()?;
            let starts_there = start.integers(&node.place).ok()? == [i64::try_from(position).ok()?];
            let from = node.inputs.first()?;
            if node.operator != "Slice" || !starts_there || *whole.get_or_insert(from) != from {
                return None;
            }
        }
        whole.map(String::as_str)
    }

    /// Positions of the operators that `output` depends on, in the order of the file.
    fn needed(&self, output: &str) -> Result<Vec<usize>, ReadError> {
        let mut producers = HashMap::new();
        for (position, node) in self.nodes.iter().enumerate() {
            for name in node.outputs.iter().filter(|name| !name.is_empty()) {
                if producers.insert(name.as_str(), position).is_some() {
                    return Err(node.malformed(format!("{name:?} is computed twice")));
                }
            }
        }
        let mut needed = HashSet::new();
        let mut open = vec![output];
        while let Some(name) = open.pop() {
            if let Some(&position) = producers.get(name)
                && needed.insert(position)
            {
                open.extend(self.nodes[position].inputs.iter().map(String::as_str));
            }
        }
        let mut order: Vec<usize> = needed.into_iter().collect();
        order.sort_unstable();
        Ok(order)
    }
}

/// Values so far.
struct Walk<'g> {
    graph: &'g Graph,
    values: HashMap<String, Value>,
    compared: Vec<(u32, bool)>,
    work: usize,
}

impl Walk<'_> {
    fn visit(&mut self, node: &Node) -> Result<(), ReadError> {
        let value = self.result(node)?;
        if let Value::Scores(scores) = &value {
            self.charge(node, scores.raw.size())?;
        }
        // Classifiers write labels first.
        let output = usize::from(node.operator.ends_with("Classifier"));
        if let Some(name) = node.outputs.get(output) {
            self.values.insert(name.clone(), value);
        }
        Ok(())
    }

    fn charge(&mut self, node: &Node, numbers: usize) -> Result<(), ReadError> {
        self.work = self.work.saturating_add(numbers);
        if self.work > MAX_WORK {
            return Err(
                node.unsupported(format!("a graph that moves more than {MAX_WORK} numbers"))
            );
        }
        Ok(())
    }

    fn result(&mut self, node: &Node) -> Result<Value, ReadError> {
        let scores = match node.operator.as_str() {
            "TreeEnsembleClassifier" | "TreeEnsembleRegressor" | "TreeEnsemble" => {
                self.trees(node)?
            }
            "LinearRegressor" => linear::regressor(node, &self.columns(node, 0)?)?,
            "LinearClassifier" => linear::classifier(node, &self.columns(node, 0)?)?,
            "Scaler" => linear::scaler(node, &self.columns(node, 0)?)?,
            "MatMul" => linear::product(node, &self.columns(node, 0)?, &*self.constant(node, 1)?)?,
            "Gemm" => {
                let bias = if node.inputs.len() > 2 { Some(self.constant(node, 2)?) } else { None };
                let (columns, matrix) = (self.columns(node, 0)?, self.constant(node, 1)?);
                linear::general_product(node, &columns, &matrix, bias.as_deref())?
            }
            "Add" | "Sub" | "Mul" | "Div" => {
                elementwise::arithmetic(node, &self.value(node, 0)?, &self.value(node, 1)?)?
            }
            "Sum" => self.sum(node)?,
            "Sigmoid" | "Softmax" | "Exp" => elementwise::linked(node, &self.scores(node, 0)?)?,
            // Of probabilities, before they are added up: they are not negative.
            "Abs" => {
                let scores = self.scores(node, 0)?;
                match scores.link {
                    Link::Softmax | Link::OneVsAll { .. } | Link::Exp => scores,
                    _ => return Err(node.unsupported("operator Abs of what may be negative")),
                }
            }
            "Cast" => {
                let scores = self.scores(node, 0)?;
                elementwise::cast(&scores, self.is_single(node)?)
            }
            "Identity" => return self.value(node, 0),
            "Constant" => return self.stated(node),
            "ReduceSum" => {
                let axes = if node.inputs.len() > 1 { Some(self.constant(node, 1)?) } else { None };
                return layout::row_sum(node, &self.scores(node, 0)?, axes.as_deref());
            }
            _ => self.laid_out(node)?,
        };
        Ok(Value::Scores(scores))
    }

    /// Operators that choose, join and rename columns.
    fn laid_out(&self, node: &Node) -> Result<Scores, ReadError> {
        let scores = || self.scores(node, 0);
        match node.operator.as_str() {
            "Concat" | "FeatureVectorizer" => {
                let parts = (0..node.inputs.len()).map(|at| self.scores(node, at));
                let parts = parts.collect::<Result<Vec<_>, _>>()?;
                layout::concat(node, &parts.iter().collect::<Vec<_>>())
            }
            "ArrayFeatureExtractor" | "Gather" => {
                layout::extract(node, &scores()?, &*self.constant(node, 1)?)
            }
            "Slice" => {
                let constants = (1..node.inputs.len()).map(|at| self.constant(node, at));
                let constants = constants.collect::<Result<Vec<_>, _>>()?;
                let constants: Vec<&Tensor> = constants.iter().map(|tensor| &**tensor).collect();
                layout::slice(node, &scores()?, &constants)
            }
            "Reshape" => layout::reshape(node, &scores()?, &*self.constant(node, 1)?),
            "Normalizer" => layout::normalizer(node, &scores()?),
            "ZipMap" => layout::zip_map(node, &scores()?),
            other => Err(node.unsupported(format!("operator {other}"))),
        }
    }

    fn trees(&mut self, node: &Node) -> Result<Scores, ReadError> {
        let columns = self.columns(node, 0)?;
        let scores = match node.operator.as_str() {
            "TreeEnsembleClassifier" => trees::classifier(node, &columns)?,
            "TreeEnsembleRegressor" => trees::regressor(node, &columns)?,
            _ => tree_tensors::ensemble(node, &columns)?,
        };
        let paths = columns.iter().filter_map(|column| column.path.as_ref());
        self.compared.extend(paths.map(|path| (path.feature, path.rounded)));
        Ok(scores)
    }

    fn sum(&self, node: &Node) -> Result<Scores, ReadError> {
        let mut sum = self.scores(node, 0)?;
        for position in 1..node.inputs.len() {
            sum = elementwise::sum(node, &sum, &self.scores(node, position)?)?;
        }
        Ok(sum)
    }

    /// The tensor that a `Constant` states.
    fn stated(&self, node: &Node) -> Result<Value, ReadError> {
        match node.attributes()?.tensor("value")? {
            Some(tensor) => Ok(Value::Constant(Rc::new(tensor))),
            None => Err(node.unsupported("a constant that is not a tensor")),
        }
    }

    fn is_single(&self, node: &Node) -> Result<bool, ReadError> {
        match i32::try_from(node.attributes()?.integer("to", 0)) {
            Ok(element::FLOAT) => Ok(true),
            Ok(element::DOUBLE) => Ok(false),
            _ => Err(node.unsupported("a cast to anything but float32 and float64")),
        }
    }

    fn value(&self, node: &Node, position: usize) -> Result<Value, ReadError> {
        let name = node.input(position)?;
        if let Some(value) = self.values.get(name) {
            return Ok(value.clone());
        }
        match self.graph.constants.get(name) {
            Some(message) => {
                let tensor = Tensor::read(message.clone(), &format!("constant {name:?}"))?;
                Ok(Value::Constant(Rc::new(tensor)))
            }
            None => Err(self.absent(node, name)),
        }
    }

    /// Why there is no value of a name.
    fn absent(&self, node: &Node, name: &str) -> ReadError {
        let writes = |other: &&Node| other.outputs.iter().any(|output| output == name);
        match self.graph.nodes.iter().find(writes) {
            Some(other) if other.operator.ends_with("Classifier") => {
                node.unsupported(format!("arithmetic on the labels {name:?}"))
            }
            _ => node.malformed(format!("nothing computes its input {name:?} before it")),
        }
    }

    fn constant(&self, node: &Node, position: usize) -> Result<Rc<Tensor>, ReadError> {
        match self.value(node, position)? {
            Value::Constant(tensor) => Ok(tensor),
            _ => Err(node.unsupported(format!("input {position} that depends on the row"))),
        }
    }

    fn scores(&self, node: &Node, position: usize) -> Result<Scores, ReadError> {
        match self.value(node, position)? {
            Value::Scores(scores) => Ok(scores),
            Value::Constant(_) => Err(node.unsupported("a constant where rows are expected")),
            Value::RowSum(_) => Err(node.unsupported("the sum of a row's columns")),
        }
    }

    fn columns(&self, node: &Node, position: usize) -> Result<Vec<Column>, ReadError> {
        let scores = self.scores(node, position)?;
        match (&*scores.raw, &scores.link) {
            (Raw::Columns(columns), Link::Identity) => Ok(columns.clone()),
            _ => Err(node.unsupported("a model behind another model")),
        }
    }
}
