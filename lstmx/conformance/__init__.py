"""A kit against which anybody tests an implementation of recurrent cells: cases, the truth, and known mistakes.

An implementation is a function that takes a `Case` and returns a dict of arrays. This is one of an LSTM, and it
has a mistake:

    import numpy as np
    import lstmx

    def mine(case):
        if case.name not in ("lstm", "lstm, initial state"):
            return None                                         # not one of mine
        p, h, c, outputs = case.params, case.state["hidden_state"], case.state["cell_state"], []
        for x in case.xs:                                       # [B, D]
            i, f, g, o = np.split(x @ p["input_kernel"] + h @ p["recurrent_kernel"] + p["bias"], 4, axis=-1)
            c = c / (1 + np.exp(-f - 1)) + np.tanh(g) / (1 + np.exp(-i))
            h = np.tanh(c) / (1 + np.exp(-o))
            outputs.append(h)
        return {"outputs": np.stack(outputs), "final_hidden_state": h, "final_cell_state": c}

    print(lstmx.conformance.check_against(mine))                # MISTAKE: forget bias added twice: …

`lstmx check-implementation my_module:mine` does so from the command line, and `lstmx check-implementation torch`
for a library that is installed.

What is asked for, by the names of `case.asked`, any part of which may be returned. T steps, B sequences; H and the
order of blocks are those of the cell's docstring. Where a network has several cells, names have that of the cell
in front: "layer 0/forget_gate", "gradient.backward/bias".

- "outputs", [T, B, H]: what the network gives.
- "forget_gate" and the like, "candidate" too, [T, B, H]: at the step of the input that is read, in the backward
  direction, too.
- "hidden_state", "cell_state", [T, B, H]: after each step; "final_hidden_state", [B, H]: after the last that
  counts.
- "gradient.bias" and the like, as the parameter: ∂L/∂(parameter) of the loss L = Σ case.weights ∘ outputs.
- "gradient.inputs", [T, B, D], and "gradient.initial_hidden_state", [B, H]: ∂L/∂x_t, and that of the start.
- "gradient.hidden_state", "gradient.cell_state", [T, B, H]: the total ∂L/∂h_t and ∂L/∂c_t, all that depends on h_t
  or on c_t moving with it, h_t with c_t.
- "jacobians", [T, B, S, S]: J_t = ∂s_t/∂s_{t-1} of the joint state s, its fields side by side, h before c, the
  lowest layer first.
- "finite_time_exponents", [B, S]: (1/T) ln of the singular values of J_T … J_1, greatest first.
- "lyapunov_exponents", [B, S]: (1/T) ln |R_ii| of J_T … J_1 = Q R, as Benettin's method gives from the identity.
- "fixed_points", [N, S]: every joint state that a step under the input `case.x` leaves where it is, in any order.

Steps behind the end of a sequence are not compared. The truth was computed from the equations with 100 digits and
rounded to float64 (`tests/truth.py`). What differs is explained by making each known mistake in a plain NumPy
implementation and comparing all numbers: `mistakes()` lists them.
"""

from lstmx.conformance.cases import Case, cases
from lstmx.conformance.checking import CaseResult, Conformance, Difference, check_against
from lstmx.conformance.frameworks import framework
from lstmx.conformance.mistakes import mistakes
from lstmx.contents import publish

__all__ = ["Case", "CaseResult", "Conformance", "Difference", "cases", "check_against", "framework", "mistakes"]

publish(__name__)
