//! A traced step as the graph that TensorBoard draws: what the networks and losses compute, without what differentiation
//! and the optimisers add. Boxes are the phases of a step, in them the networks, in them their layers.

use crate::graph::{Node, NodeId, Source};
use crate::methods::step::StepBuilder;
use crate::watch::tensorboard;
use protobuf::RepeatedField;
use std::collections::{HashMap, HashSet};
use tensorboard_proto::attr_value::{AttrValue, AttrValue_ListValue};
use tensorboard_proto::graph::GraphDef;
use tensorboard_proto::node_def::NodeDef;
use tensorboard_proto::types::DataType;
use tensorboard_proto::versions::VersionDef;

/// Phases that are no part of the model.
const ASIDE: [&str; 2] = ["optimiser", "metric"];

/// The graph of all programs of a step.
pub fn of(steps: &[StepBuilder]) -> GraphDef {
    let mut graph = GraphDef::new();
    let mut versions = VersionDef::new();
    versions.set_producer(1);
    graph.set_versions(versions);
    let mut all = Vec::new();
    for (part, step) in steps.iter().enumerate() {
        let prefix = if steps.len() > 1 { format!("program {}/", part + 1) } else { String::new() };
        all.extend(nodes(step, &clean(&prefix)));
    }
    graph.set_node(RepeatedField::from_vec(all));
    graph
}

fn nodes(step: &StepBuilder, prefix: &str) -> Vec<NodeDef> {
    let all = step.graph().nodes();
    let losses = step.outputs().into_iter().filter(|(n, _)| n.starts_with("loss/"));
    let shown = needed(&all, losses.filter_map(|(_, v)| v.id()).collect());
    let mut names: HashMap<NodeId, String> = HashMap::new();
    // A network that is called several times has its weights drawn beside each reader, by place and number.
    let mut weights: HashSet<String> = HashSet::new();
    let mut drawn = Vec::new();
    for id in (0..all.len()).filter(|id| shown.contains(id) && !is_weight(&all, *id)) {
        let node = &all[id];
        let (name, op, inputs) = match &node.source {
            Source::State(_) => continue,
            Source::Input(name) => (format!("{prefix}{}", clean(name)), "Input", Vec::new()),
            Source::Op { op, inputs } => {
                let name = format!("{prefix}{}{}_{id}", place(node), clean(op.name()));
                let mut sources = Vec::new();
                for i in inputs {
                    if is_weight(&all, *i) {
                        let weight = format!("{prefix}{}weight_{i}", place(node));
                        if weights.insert(weight.clone()) {
                            drawn.push(define(&weight, "Parameter", Vec::new(), &all[*i]));
                        }
                        sources.push(weight);
                    }
                    // What is not drawn is a state, or comes from an optimiser.
                    sources.extend(names.get(i).cloned());
                }
                (name, op.name(), sources)
            }
        };
        drawn.push(define(&name, op, inputs, node));
        names.insert(id, name);
    }
    drawn
}

/// What is no part of the model: derivatives, optimisers, and what is measured on the side.
fn aside(node: &Node) -> bool {
    node.backward || ASIDE.contains(&&*node.phase)
}

/// Whether a value is a piece of a network's flat buffer, as it was or as an optimiser has left it. Drawn as such, every layer
/// would hang on the same few nodes.
fn is_weight(all: &[Node], id: NodeId) -> bool {
    let Source::Op { inputs, .. } = &all[id].source else { return false };
    let outside = |i: &NodeId| matches!(all[*i].source, Source::State(_)) || aside(&all[*i]);
    !aside(&all[id]) && !inputs.is_empty() && inputs.iter().all(outside)
}

/// Everything of the model that the given nodes depend on.
fn needed(all: &[Node], from: Vec<NodeId>) -> HashSet<NodeId> {
    let mut open = from;
    let mut found = HashSet::new();
    while let Some(id) = open.pop() {
        if !aside(&all[id])
            && found.insert(id)
            && let Source::Op { inputs, .. } = &all[id].source
        {
            open.extend(inputs);
        }
    }
    found
}

/// The box that a node lies in: phase, network, layer.
fn place(node: &Node) -> String {
    let boxes = [&*node.phase, &*node.path].into_iter().filter(|p| !p.is_empty());
    boxes.map(|p| clean(p) + "/").collect()
}

fn define(name: &str, op: &str, inputs: Vec<String>, node: &Node) -> NodeDef {
    let mut def = NodeDef::new();
    def.set_name(name.to_string());
    def.set_op(op.to_string());
    def.set_input(inputs.into_iter().collect());
    def.set_attr(attributes(node));
    def
}

/// What TensorBoard shows beside a node: its type, and on its edges its extents.
fn attributes(node: &Node) -> HashMap<String, AttrValue> {
    let mut list = AttrValue_ListValue::new();
    list.set_shape(RepeatedField::from_vec(vec![tensorboard::shape(&node.shape)]));
    let mut shapes = AttrValue::new();
    shapes.set_list(list);
    let mut dtype = AttrValue::new();
    dtype.set_field_type(DataType::DT_FLOAT);
    HashMap::from([("_output_shapes".to_string(), shapes), ("T".to_string(), dtype)])
}

/// A name as TensorBoard takes it: of letters, digits and `_.-/`.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-/".contains(c) { c } else { '_' }).collect()
}
