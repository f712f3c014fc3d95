"""The Cedar policy language, evaluated in-process: IR, values, compiler and decision. Pure; does not parse Cedar text.

Servers send the `ir` to guards, `values` are the parts of requests, and `compile` turns an IR into a decision function.
The semantics are those of the Cedar evaluator (docs.cedarpolicy.com, "Policies" and "Operators").
"""
