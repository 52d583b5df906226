module.exports = { compress: false, poweredByHeader: false };
