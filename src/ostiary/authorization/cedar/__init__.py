"""The Cedar policy language, evaluated in-process: IR, values, compiler and decision. Pure; knows no Cedar text.

`ir` is what servers send to guards, `values` what requests are made of, `compile` turns the first into something that
answers for the second. Semantics are those of the Cedar evaluator (docs.cedarpolicy.com, "Policies" and "Operators").
"""
