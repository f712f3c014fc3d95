"""Advice: the probable catalogue of a resource, and suggestions from a person's words. No decision imports this
package.
"""
