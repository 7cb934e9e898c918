"""The losses against the values that the published code gives for the same predictions."""

import pytest
import torch

from clade.losses import ADVERSARIAL, feature_matching, kl_divergence

MODES = {"hinge": "hinge", "ls": "least-squares", "original": "non-saturating", "w": "wasserstein"}


def predictions(tensors, side):
    return [[tensors[f"in/pred_{side}/{scale}/{layer}"] for layer in range(4)] for scale in range(2)]


def scores(tensors, side):
    return [layers[-1] for layers in predictions(tensors, side)]


def assert_published(value, published):
    torch.testing.assert_close(value, published.squeeze(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_adversarial_losses_are_the_published_ones(golden, mode):
    tensors, _ = golden("losses")
    loss = ADVERSARIAL[MODES[mode]]
    real, fake = loss.discriminator(scores(tensors, "real"), scores(tensors, "fake"))
    assert_published(loss.generator(scores(tensors, "fake")), tensors[f"out/{mode}/G_GAN"])
    assert_published(real, tensors[f"out/{mode}/D_real"])
    assert_published(fake, tensors[f"out/{mode}/D_Fake"])


def test_cc_fpse_trains_on_the_same_hinge_loss(golden):
    tensors, _ = golden("losses")
    real, fake = ADVERSARIAL["hinge"].discriminator(scores(tensors, "real"), scores(tensors, "fake"))
    assert_published(ADVERSARIAL["hinge"].generator(scores(tensors, "fake")), tensors["out/ccfpse/G_GAN"])
    assert_published(real, tensors["out/ccfpse/D_real"])
    assert_published(fake, tensors["out/ccfpse/D_Fake"])


def test_feature_matching_is_the_published_one(golden):
    tensors, meta = golden("losses")
    value = meta["lambda_feat"] * feature_matching(predictions(tensors, "fake"), predictions(tensors, "real"))
    assert_published(value, tensors["out/hinge/G_GAN_Feat"])


def test_cc_fpse_feature_matching_is_ours_divided_by_the_number_of_layers(golden):
    tensors, meta = golden("losses")
    fake, real = predictions(tensors, "fake")[:1], predictions(tensors, "real")[:1]
    value = meta["lambda_feat"] / len(fake[0][:-1]) * feature_matching(fake, real)
    assert_published(value, tensors["out/ccfpse/G_GAN_Feat"])


def test_kl_divergence_is_the_published_one_divided_by_the_batch_size(golden):
    tensors, meta = golden("losses")
    mu, logvar = tensors["in/mu"], tensors["in/logvar"]
    value = kl_divergence(mu, logvar) * len(mu)
    assert_published(meta["lambda_kld"] * value, tensors["out/hinge/G_KLD"])
    torch.testing.assert_close(value, tensors["out/kld_raw"].squeeze(0), rtol=1e-6, atol=0)
