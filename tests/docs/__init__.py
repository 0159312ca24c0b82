"""Pages of resources/docs whose figures are computed: ``make docs`` writes them anew."""
