"""Names of blocks, optimizers and the like, known without importing JAX.

A launcher checks its flags against these names before JAX is imported, which takes
seconds. A test compares them with the keys of the tables.
"""

TABLES = {
    ("ffnlab.nn.activations", "ACTIVATIONS"): (
        "identity",
        "relu",
        "relu2",
        "leaky_relu",
        "elu",
        "selu",
        "sigmoid",
        "tanh",
        "gelu",
        "gelu_tanh",
        "silu",
        "swish",
        "swish_channel",
        "mish",
        "softplus",
        "hard_swish",
    ),
    ("ffnlab.nn.ffn", "BLOCKS"): (
        "mlp",
        "glu",
        "bilinear",
        "reglu",
        "geglu",
        "swiglu",
        "miglu",
    ),
    ("ffnlab.nn.initializers", "INITIALIZERS"): (
        "zeros",
        "normal",
        "uniform",
        "xavier",
        "xavier_normal",
        "he",
        "he_uniform",
        "lecun",
        "lecun_uniform",
        "orthogonal",
    ),
    ("ffnlab.nn.norms", "NORMS"): ("layer", "rms", "batch"),
    ("ffnlab.models.sequence", "KINDS"): (
        "feedback",
        "elman",
        "birnn",
        "gru",
        "bigru",
        "window",
    ),
    ("ffnlab.train.optimizers", "OPTIMIZERS"): (
        "sgd",
        "momentum",
        "nesterov",
        "adagrad",
        "rmsprop",
        "adam",
        "adamw",
        "lion",
        "muon",
    ),
    ("ffnlab.train.optimizers", "SCHEDULES"): ("constant", "linear", "cosine"),
}
# Blocks that take any activation: `mlp:NAME`, `glu:NAME`.
OPEN_BLOCKS = ("mlp", "glu")
