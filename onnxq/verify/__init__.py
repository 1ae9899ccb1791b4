"""Is the result a valid graph, finite, close to float, faster, and really in integer kernels?"""
