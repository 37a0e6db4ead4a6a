//! Trees out of files, whose nodes come in any order and may point anywhere.

use crate::reader::ReadError;
use crate::trained::{Tree, TreeNode, ValueSet};

/// A node as a file describes it, with the file's ids of its children.
pub(crate) enum FileNode {
    Leaf(Vec<(u32, f64)>),
    Split(FileSplit),
}

/// An inner node. The file's left child becomes the first one after its parent.
pub(crate) struct FileSplit {
    pub(crate) feature: u32,
    /// Values that go left, where `inside_is_left`, and right otherwise.
    pub(crate) values: ValueSet,
    pub(crate) inside_is_left: bool,
    pub(crate) missing_is_left: bool,
    pub(crate) left: usize,
    pub(crate) right: usize,
}

/// Collects a tree from its root on: parents before children, left before right, so that leaves
/// are numbered from left to right. Nodes that cannot be reached are left out; a node that is
/// reached twice is refused, so that what comes out is no larger than the file.
pub(crate) fn collect(
    root: usize,
    in_file: usize,
    mut describe: impl FnMut(usize) -> Result<FileNode, ReadError>,
) -> Result<Tree, ReadError> {
    let mut nodes: Vec<TreeNode> = Vec::new();
    let mut is_met = vec![false; in_file];
    // What is still to visit, and the reference to it that is not known yet.
    let mut open = vec![(root, None)];
    while let Some((id, parent)) = open.pop() {
        match is_met.get_mut(id) {
            Some(is_met) if !*is_met => *is_met = true,
            _ => return Err(ReadError::malformed("nodes", "children that do not form a tree")),
        }
        let position = nodes.len();
        if let Some((parent, is_inside)) = parent {
            attach(&mut nodes, parent, is_inside, position)?;
        }
        match describe(id)? {
            FileNode::Leaf(values) => nodes.push(TreeNode::Leaf(values)),
            FileNode::Split(split) => {
                open.push((split.right, Some((position, !split.inside_is_left))));
                open.push((split.left, Some((position, split.inside_is_left))));
                nodes.push(TreeNode::Split {
                    feature: split.feature,
                    values: split.values,
                    missing_inside: split.missing_is_left == split.inside_is_left,
                    inside: 0,
                    outside: 0,
                });
            }
        }
    }
    Ok(Tree { nodes })
}

fn attach(
    nodes: &mut [TreeNode],
    parent: usize,
    is_inside: bool,
    child: usize,
) -> Result<(), ReadError> {
    let child = u32::try_from(child)
        .map_err(|_| ReadError::malformed("nodes", "more than 2^32 of them"))?;
    if let Some(TreeNode::Split { inside, outside, .. }) = nodes.get_mut(parent) {
        *if is_inside { inside } else { outside } = child;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(children: &[Option<(usize, usize)>]) -> Result<Tree, ReadError> {
        collect(0, children.len(), |id| {
            Ok(match children[id] {
                None => FileNode::Leaf(vec![(0, id as f64)]),
                Some((left, right)) => FileNode::Split(FileSplit {
                    feature: 0,
                    values: ValueSet(Vec::new()),
                    inside_is_left: false,
                    missing_is_left: true,
                    left,
                    right,
                }),
            })
        })
    }

    #[test]
    fn left_comes_before_right() {
        let tree = walk(&[Some((3, 1)), Some((4, 2)), None, None, None]).unwrap();
        let leaves = tree.nodes.iter().filter_map(|node| match node {
            TreeNode::Leaf(values) => Some(values[0].1),
            TreeNode::Split { missing_inside, .. } => {
                assert!(!missing_inside);
                None
            }
        });
        assert_eq!(leaves.collect::<Vec<_>>(), [3.0, 4.0, 2.0]);
        assert!(matches!(tree.nodes[0], TreeNode::Split { inside: 2, outside: 1, .. }));
    }

    #[test]
    fn circles_and_shared_nodes_end() {
        assert!(walk(&[Some((0, 0))]).is_err());
        assert!(walk(&[Some((1, 1)), Some((2, 2)), None]).is_err());
        assert!(walk(&[]).is_err());
    }
}
