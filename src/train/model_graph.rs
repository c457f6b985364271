//! A traced step as the graph that TensorBoard draws: what the networks and losses compute, without what differentiation
//! and the optimisers add. Boxes are the phases of a step, in them the networks, in them their layers.

use super::step::StepBuilder;
use super::tensorboard;
use crate::graph::{Node, NodeId, Source};
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
    let own = |n: &Node| !n.backward && !ASIDE.contains(&&*n.phase);
    let shown =
        needed(&all, step.outputs().iter().filter(|(n, _)| n.starts_with("loss/")).map(|(_, v)| v.id()));
    // A parameter is a view of a network's flat buffer. Drawn as such, every layer would hang on the same few nodes.
    let of_state = |id: NodeId| matches!(all[id].source, Source::State(_));
    let mut names: HashMap<NodeId, String> = HashMap::new();
    let mut drawn = Vec::new();
    for (id, node) in all.iter().enumerate().filter(|(id, n)| shown.contains(id) && own(n)) {
        let (op, inputs) = match &node.source {
            Source::State(_) => continue,
            Source::Input(_) => ("Input", Vec::new()),
            Source::Op { inputs, .. } if !inputs.is_empty() && inputs.iter().all(|i| of_state(*i)) => {
                ("Parameter", Vec::new())
            }
            Source::Op { op, inputs } => (op.name(), inputs.clone()),
        };
        let name = match &node.source {
            Source::Input(name) => clean(name),
            _ => {
                let place: Vec<String> =
                    [&*node.phase, &*node.path].iter().filter(|p| !p.is_empty()).map(|p| clean(p)).collect();
                [place.join("/"), format!("{}_{id}", clean(op))].join("/").trim_start_matches('/').to_string()
            }
        };
        let name = format!("{prefix}{name}");
        let mut def = NodeDef::new();
        def.set_name(name.clone());
        def.set_op(op.to_string());
        // Every input was traced before its reader; those that are not drawn are states.
        def.set_input(inputs.iter().filter_map(|i| names.get(i).cloned()).collect());
        def.set_attr(attributes(node));
        names.insert(id, name);
        drawn.push(def);
    }
    drawn
}

/// Everything that the given nodes depend on.
fn needed(all: &[Node], from: impl Iterator<Item = Option<NodeId>>) -> HashSet<NodeId> {
    let mut open: Vec<NodeId> = from.flatten().collect();
    let mut found = HashSet::new();
    while let Some(id) = open.pop() {
        if found.insert(id)
            && let Source::Op { inputs, .. } = &all[id].source
        {
            open.extend(inputs);
        }
    }
    found
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
