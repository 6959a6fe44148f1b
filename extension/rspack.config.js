// Natural ids depend on the order of modules alone: with the default, a hash of the absolute path, the same sources in
// another folder would give other bytes, and the committed build could not be checked.
module.exports = { optimization: { moduleIds: 'natural', chunkIds: 'natural' } };
