"""Embedding similarity: an item is as like a history as its text's embedding is to those of the chosen items, less to
those of the items passed over. Any encoder of the hub will do; what is taken is the mean of its last states.

Models that want a prefix ("query: ") or another pooling are taken without: a baseline, not a search engine.
Suffixes of arrays: `B` texts of a batch, `T` tokens, `D` width of a state, `I` all items, `H` items of a history.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from alignxplore.baselines.histories import chosen_less_rejected, texts_of
from alignxplore.devices import refuse_unusable_gpu
from alignxplore.errors import UserError
from alignxplore.records import Interaction

BATCH, MOST_TOKENS = 64, 512


class Encoder:
    """A model of the hub, or in a folder, that turns texts into vectors of length one; on the GPU if there is one.

    Raises:
        UserError: it cannot be loaded, or torch cannot use the GPU.
    """

    def __init__(self, model: str, revision: str | None = None):
        import torch
        from transformers import AutoModel, AutoTokenizer

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._device == "cpu":
            refuse_unusable_gpu("DEVICE=cpu", needs_cuda=False)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
            self._model = AutoModel.from_pretrained(model, revision=revision).to(self._device).eval()
        except (OSError, ValueError) as error:
            raise UserError(
                f"--baselines embedding={model}: no model that can be loaded ({str(error).splitlines()[0]}); give a "
                "folder or a hub id"
            ) from None
        self._tokenizer.padding_side = "right"
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 vectors (texts, width), each of length one; of a long text the first `MOST_TOKENS` tokens."""
        import torch

        vectors = []
        for start in range(0, len(texts), BATCH):
            batch = self._tokenizer(
                list(texts[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=MOST_TOKENS,
                return_tensors="pt",
                return_token_type_ids=False,
            ).to(self._device)
            with torch.no_grad():
                states_BTD = self._model(**batch).last_hidden_state.float()
            mask_BT1 = batch["attention_mask"][..., None]
            mean_BD = (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1)
            vectors.append(torch.nn.functional.normalize(mean_BD, dim=-1).cpu().numpy())
        return np.concatenate(vectors)


class Embeddings:
    """How like an item is to a history, by the cosines of embeddings.

    Args:
        texts: all item texts that will be asked about; their vectors are held in memory (1.5 KB a text at a width of
            384).
    """

    def __init__(self, encoder: Encoder, texts: Iterable[str]):
        texts_by_length = sorted(set(texts), key=len)  # texts of like length share a batch
        self._place = {text: place for place, text in enumerate(texts_by_length)}
        self._vectors_ID = encoder.embed(texts_by_length)

    def __call__(self, item: str, history: Sequence[Interaction]) -> float:
        texts = list(texts_of(history))
        cosines_H = self._vectors_ID[[self._place[text] for text in texts]] @ self._vectors_ID[self._place[item]]
        return chosen_less_rejected(dict(zip(texts, cosines_H.tolist())), history)
