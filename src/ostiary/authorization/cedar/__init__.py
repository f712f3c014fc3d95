"""The Cedar policy language, evaluated in-process: IR, values, compiler and decision. Pure; reads no Cedar text.

`ir` is sent by servers to guards, `values` are the parts of requests, `compile` makes a decision function of an IR.
Semantics are those of the Cedar evaluator (docs.cedarpolicy.com, "Policies" and "Operators").
"""
