"""Make rmt.npz and armt.npz: some segments of RMT and ARMT, computed by the code of ARMT's authors around PyTorch's
transformer.

Source: https://github.com/RodkinIvan/associative-recurrent-memory-transformer (Apache License 2.0), the files
modeling_rmt/language_modeling.py and modeling_amt/language_modeling.py at commit COMMIT.
Run: python make_rmt.py FOLDER, where FOLDER holds both paths. It needs torch and numpy.

They add 1e-5 to what they divide by, and leave that away in the first segment; here it is 1e-12 everywhere.
"""

import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

COMMIT = "aa145de9f50c08778e2579a2130b3db0d379bce5"  # of 2024-08-02
SEGMENTS, K, B, WIDTH, HEADS, LAYERS, TOKENS, KEY = 4, 3, 2, 8, 2, 2, 2, 3


class Output(dict):
    """What stands for the output of a model of transformers."""

    __getattr__ = dict.__getitem__


def source(path):
    for name in ("transformers", "transformers.modeling_outputs", "wandb"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["transformers.modeling_outputs"].CausalLMOutputWithCrossAttentions = Output
    module = types.ModuleType(path.stem)
    exec(compile(path.read_text().replace("1e-5", "1e-12"), path, "exec"), vars(module))
    return module


class Layer(nn.TransformerEncoderLayer):
    def __init__(self):
        super().__init__(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)

    def forward(self, hidden_states):
        steps = hidden_states.shape[1]
        return (super().forward(hidden_states, nn.Transformer.generate_square_subsequent_mask(steps)),)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = types.SimpleNamespace(n_embd=WIDTH, hidden_size=WIDTH)
        self.words = nn.Embedding(2, WIDTH)
        self.layers, self.norm = nn.ModuleList(Layer() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)

    def get_input_embeddings(self):
        return self.words

    def forward(self, inputs_embeds, input_ids=None, output_hidden_states=True):
        h = inputs_embeds
        for layer in self.layers:
            h = layer(hidden_states=h)[0]
        return Output(logits=self.norm(h), hidden_states=[self.norm(h)])


def main():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    rmt = source(Path(sys.argv[1]) / "modeling_rmt" / "language_modeling.py")
    armt = source(Path(sys.argv[1]) / "modeling_amt" / "language_modeling.py")
    cells = {
        "rmt": rmt.MemoryCell(Model(), TOKENS, wrap_pos=False),
        "armt": armt.AssociativeMemoryCell(Model(), TOKENS, KEY, layers_attr="layers", wrap_pos=False),
    }
    for name, cell in cells.items():
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
            for key, parameter in cell.named_parameters():
                if "attn" in key and "bias" in key:
                    parameter.zero_()
            x, ids = torch.randn(B, SEGMENTS * K, WIDTH), torch.zeros(B, K)
            outputs, memory = [], None
            for segment in x.split(K, dim=1):
                if name == "rmt":
                    out, memory = cell(ids, memory, inputs_embeds=segment)
                else:
                    out = cell(ids, inputs_embeds=segment)
                outputs.append(out["logits"])
        named = cell.state_dict().items()
        arrays = {key: value.numpy() for key, value in named if not key.startswith("layers.")}  # which come twice
        np.savez_compressed(f"{name}.npz", x=x.numpy(), y=torch.cat(outputs, dim=1).numpy(), **arrays)


if __name__ == "__main__":
    main()
