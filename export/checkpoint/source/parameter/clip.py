"""The parameters of transformers' CLIPTextModel and CLIPTextModelWithProjection."""

from __future__ import annotations

from costroute_rt.export.checkpoint.source.parameter.layer import Parameters, linear, norm
from costroute_rt.export.checkpoint.source.parameter.settings import Settings

_MOST_LAYERS = 128
_NUMBERS = ("attention_dropout", "initializer_factor", "initializer_range", "layer_norm_eps")
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu")
KNOWN = (
    "architectures", "hidden_act", "hidden_size", "intermediate_size", "max_position_embeddings", "model_type", "num_attention_heads",
    "num_hidden_layers", "projection_dim", "vocab_size", *_NUMBERS, *_TOKENS,
)  # fmt: skip
"""The settings of the class; transformers reads others as orders of its own, such as kernels to download."""


def clip_parameters(settings: Settings, *, has_projection: bool) -> Parameters:
    """The parameters by name; raises BundleError for settings that are wrong."""
    settings.numbers(*_NUMBERS, *(key for key in _TOKENS if settings.values.get(key) is not None))
    settings.choice("hidden_act", *_ACTIVATIONS)
    width, inner = settings.whole("hidden_size", 512), settings.whole("intermediate_size", 2048)
    settings.divisor("num_attention_heads", 8, (width,))
    found: Parameters = {
        "text_model.embeddings.token_embedding.weight": (settings.whole("vocab_size", 49408), width),
        "text_model.embeddings.position_embedding.weight": (settings.whole("max_position_embeddings", 77), width),
    }
    for layer in range(settings.whole("num_hidden_layers", 12, _MOST_LAYERS)):
        name = f"text_model.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= linear(f"{name}.self_attn.{part}", width, width)
        found |= norm(f"{name}.layer_norm1", width) | norm(f"{name}.layer_norm2", width)
        found |= linear(f"{name}.mlp.fc1", inner, width) | linear(f"{name}.mlp.fc2", width, inner)
    found |= norm("text_model.final_layer_norm", width)
    return found | linear("text_projection", settings.whole("projection_dim", 512), width, has_bias=False) if has_projection else found
