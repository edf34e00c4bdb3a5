"""The steps of the optimizers in compiled code.

Shapes: all parameters p (n,), their gradient g (n,) in float64, moments (n_moments, n). Numbers are computed in float64
and rounded to the type of the parameters once a step.
"""

from typing import Any

import numpy as np

from linreg.training.engines.compiled.kernel import Array, kernel

SGD, ADAM, RMSPROP, ADAGRAD = range(4)


@kernel
def clip(g: Array, most: float) -> None:
    """Scale a gradient down to the norm `most`, as torch's clip_grad_norm_ does; 0 for no limit."""
    if most > 0.0:
        squares = 0.0
        for i in range(len(g)):
            squares += np.float64(g[i]) * g[i]
        factor = most / (np.sqrt(squares) + 1e-6)
        if factor < 1.0:
            for i in range(len(g)):
                g[i] *= factor


@kernel
def sgd_step(
    p: Array, g: Array, moments: Array, first: bool,
    lr: float, momentum: float, dampening: float, weight_decay: float, nesterov: bool,
) -> None:  # fmt: skip
    """Take a step of stochastic gradient descent as torch.optim.SGD does.

    moments: the momentum buffer, which starts as the first gradient (I. Sutskever et al., On the importance of
    initialization and momentum in deep learning, 2013; as in torch, lr does not enter the buffer)."""
    for i in range(len(p)):
        step = g[i] + weight_decay * p[i]
        if momentum != 0.0:
            buffer = step if first else momentum * moments[0, i] + (1.0 - dampening) * step
            moments[0, i] = buffer
            step = step + momentum * buffer if nesterov else buffer
        p[i] -= lr * step


@kernel
def adam_step(
    p: Array, g: Array, moments: Array, step: int,
    lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool, amsgrad: bool,
) -> None:  # fmt: skip
    """Take Adam's step number `step`, counted from 1, as torch.optim.Adam does.

    moments: of the gradient, of its square, and with amsgrad the largest of the latter (D. P. Kingma and J. Ba, Adam: a
    method for stochastic optimization, 2015; amsgrad: S. J. Reddi et al., On the convergence of Adam and beyond, 2018;
    decoupled weight decay, AdamW: I. Loshchilov and F. Hutter, Decoupled weight decay regularization, 2019)."""
    correction1 = 1.0 - beta1**step
    correction2 = np.sqrt(1.0 - beta2**step)
    for i in range(len(p)):
        value, slope = np.float64(p[i]), g[i]
        if decoupled:
            value *= 1.0 - lr * weight_decay
        else:
            slope += weight_decay * value
        mean = beta1 * moments[0, i] + (1.0 - beta1) * slope
        square = beta2 * moments[1, i] + (1.0 - beta2) * slope * slope
        moments[0, i] = mean
        moments[1, i] = square
        if amsgrad:
            square = np.maximum(np.float64(moments[2, i]), square)
            moments[2, i] = square
        p[i] = value - lr / correction1 * mean / (np.sqrt(square) / correction2 + eps)


@kernel
def rmsprop_step(
    p: Array, g: Array, moments: Array, lr: float, alpha: float, eps: float, weight_decay: float, momentum: float,
    centered: bool,
) -> None:  # fmt: skip
    """Take a step of RMSprop as torch.optim.RMSprop does. moments: of the square, the momentum buffer if there is
    momentum, and the mean gradient if centered (A. Graves, Generating sequences with recurrent neural networks, 2013).
    """
    for i in range(len(p)):
        slope = g[i] + weight_decay * p[i]
        square = alpha * moments[0, i] + (1.0 - alpha) * slope * slope
        moments[0, i] = square
        if centered:
            mean = moments[-1, i] + (1.0 - alpha) * (slope - moments[-1, i])
            moments[-1, i] = mean
            square -= mean * mean
        step = slope / (np.sqrt(square) + eps)
        if momentum != 0.0:
            step += momentum * moments[1, i]
            moments[1, i] = step
        p[i] -= lr * step


@kernel
def adagrad_step(
    p: Array, g: Array, moments: Array, step: int, lr: float, lr_decay: float, eps: float, weight_decay: float
) -> None:
    """Take Adagrad's step number `step`, counted from 1, as torch.optim.Adagrad does. moments: the sum of squares (J.
    Duchi et al., Adaptive subgradient methods for online learning and stochastic optimization, 2011)."""
    rate = lr / (1.0 + (step - 1) * lr_decay)
    for i in range(len(p)):
        slope = g[i] + weight_decay * p[i]
        total = moments[0, i] + slope * slope
        moments[0, i] = total
        p[i] -= rate * slope / (np.sqrt(total) + eps)


@kernel
def take_step(update: Any, p: Array, g: Array, moments: Array, steps_done: int, lr: float, momentum: float) -> None:
    """Change the parameters after steps_done steps. update: a `arrays.Update`."""
    clip(g, update.most)
    a, b, c, d, e = update.constants
    if update.kind == SGD:
        sgd_step(p, g, moments, steps_done == 0, lr, momentum, a, b, c != 0.0)
    elif update.kind == ADAM:
        adam_step(p, g, moments, steps_done + 1, lr, momentum, a, b, c, d != 0.0, e != 0.0)
    elif update.kind == RMSPROP:
        rmsprop_step(p, g, moments, lr, a, b, c, d, e != 0.0)
    else:
        adagrad_step(p, g, moments, steps_done + 1, lr, a, b, c)
