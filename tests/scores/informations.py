"""Mutual informations by quadrature."""

import math

from scipy import integrate, stats


def gaussian_information(distance, deviation=1.0):
    """I(z; v) in nats of z ~ N(+-distance, deviation^2), v the sign, by quadrature."""

    def term(z):
        two = stats.norm.pdf(z, (-distance, distance), deviation)
        return sum(0.5 * p * math.log(p / two.mean()) for p in two if p > 0)

    reach = distance + 9 * deviation
    return integrate.quad(term, -reach, reach, points=[-distance, distance], limit=400)[0]
