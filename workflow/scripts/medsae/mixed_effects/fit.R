# One mixed-effects model: fitted, judged and tidied. Sourced once by bridge.py.
#
# fit_model() never stops: what cannot be fitted comes back with the reason, and what did not
# converge or is singular says so.

# With `cluster`, a column of `data`, standard errors, degrees of freedom, p and intervals of the
# fixed effects are the cluster-robust ones (CR2 with Satterthwaite's degrees of freedom; Pustejovsky
# and Tipton 2018): right when clusters or models differ in spread, and with few clusters.
# `plus` and `minus` name fixed effects: with `cluster`, the differences plus[i] - minus[i] are rows
# too, of effect "difference".
fit_model <- function(data, formula, engine, cluster = "", plus = character(), minus = character()) {
  messages <- character()
  note <- function(condition) {
    messages <<- c(messages, trimws(conditionMessage(condition)))
  }
  fit <- tryCatch(
    withCallingHandlers(
      engines[[engine]](as.formula(formula), data),
      warning = function(w) { note(w); invokeRestart("muffleWarning") },
      message = function(m) { note(m); invokeRestart("muffleMessage") }
    ),
    error = function(e) e
  )
  if (inherits(fit, "error")) return(not_estimable(conditionMessage(fit)))
  judge <- if (inherits(fit, "merMod")) judge_lme4 else if (inherits(fit, "lm")) judge_lm else judge_glmmtmb
  judged <- judge(fit)
  coefficients <- tryCatch({
    table <- tidy_model(fit, if (nzchar(cluster)) data[, cluster])
    if (nzchar(cluster)) rbind(table, differences(fit, data[, cluster], plus, minus)) else table
  }, error = function(e) e)
  if (inherits(coefficients, "error")) return(not_estimable(conditionMessage(coefficients)))
  list(
    model = fit,
    coefficients = coefficients,
    converged = judged$converged,
    singular = judged$singular,
    messages = paste(unique(c(messages, judged$messages)), collapse = "; "),
    reason = "",
    residuals = quantile_residuals(fit),
    random_effects = random_effects(fit)
  )
}

not_estimable <- function(reason) {
  list(
    model = list(status = "not estimable", reason = reason), coefficients = NULL,
    converged = NA, singular = NA, messages = "", reason = gsub("\\s+", " ", trimws(reason)),
    residuals = NULL, random_effects = NULL
  )
}

engines <- list(
  lmer = function(formula, data) lmerTest::lmer(formula, data),
  lm = function(formula, data) {
    fit <- eval(bquote(stats::lm(.(formula), data)))
    if (fit$df.residual < 1) stop("no more rows than coefficients")
    fit
  },
  beta = function(formula, data) {
    glmmTMB::glmmTMB(formula, data, family = glmmTMB::beta_family(link = "logit"))
  },
  gamma = function(formula, data) {
    glmmTMB::glmmTMB(formula, data, family = stats::Gamma(link = "log"))
  }
)

judge_lme4 <- function(fit) {
  conv <- fit@optinfo$conv
  messages <- unlist(conv$lme4$messages)
  list(
    converged = conv$opt == 0 && !any(grepl("failed to converge|unable to evaluate", messages)),
    singular = lme4::isSingular(fit),
    messages = messages
  )
}

judge_lm <- function(fit) {
  list(converged = TRUE, singular = anyNA(stats::coef(fit)), messages = NULL)
}

judge_glmmtmb <- function(fit) {
  sds <- unlist(lapply(glmmTMB::VarCorr(fit)$cond, attr, "stddev"))
  list(
    converged = fit$fit$convergence == 0 && isTRUE(fit$sdr$pdHess),
    singular = any(sds < 1e-4),
    messages = if (fit$fit$convergence != 0) fit$fit$message
  )
}

# Tidy columns as broom.mixed names them. Intervals of fixed effects use the t distribution
# where Satterthwaite's degrees of freedom are known, else the normal one.
tidy_model <- function(fit, cluster = NULL) {
  table <- if (inherits(fit, "lm")) tidy_lm(fit) else as.data.frame(suppressWarnings(
    broom.mixed::tidy(fit, effects = c("fixed", "ran_pars"))
  ))
  columns <- c("effect", "group", "term", "estimate", "std.error", "statistic", "df", "p.value")
  for (name in setdiff(columns, names(table))) table[[name]] <- NA_real_
  table <- table[columns]
  fixed <- table$effect == "fixed"
  if (!is.null(cluster)) table[fixed, ] <- robust(fit, table[fixed, ], cluster)
  df <- ifelse(is.na(table$df), Inf, table$df)
  half <- suppressWarnings(stats::qt(0.975, df)) * table$std.error
  table$conf.low <- ifelse(fixed, table$estimate - half, NA_real_)
  table$conf.high <- ifelse(fixed, table$estimate + half, NA_real_)
  table$group <- ifelse(is.na(table$group), "", as.character(table$group))
  table
}

robust <- function(fit, table, cluster) {
  tests <- clubSandwich::coef_test(fit, vcov = "CR2", cluster = cluster, test = "Satterthwaite")
  tests <- tests[match(table$term, tests$Coef), ]
  table$std.error <- tests$SE
  table$statistic <- tests$tstat
  table$df <- tests$df_Satt
  table$p.value <- tests$p_Satt
  table
}

# The rows of plus[i] - minus[i], in the columns of tidy_model.
differences <- function(fit, cluster, plus, minus) {
  names <- clubSandwich::coef_test(fit, vcov = "CR2", cluster = cluster)$Coef
  known <- plus %in% names & minus %in% names
  if (!any(known)) return(NULL)
  labels <- paste(plus, minus, sep = " - ")[known]
  weights <- outer(plus[known], names, "==") - outer(minus[known], names, "==")
  rownames(weights) <- labels
  tests <- clubSandwich::linear_contrast(
    fit, vcov = "CR2", cluster = cluster, contrasts = weights, test = "Satterthwaite"
  )
  statistic <- tests$Est / tests$SE
  data.frame(
    effect = "difference", group = "", term = labels, estimate = tests$Est, std.error = tests$SE,
    statistic = statistic, df = tests$df, p.value = 2 * stats::pt(-abs(statistic), tests$df),
    conf.low = tests$CI_L, conf.high = tests$CI_U
  )
}

# The same columns of a model without random effects.
tidy_lm <- function(fit) {
  numbers <- stats::coef(summary(fit))
  data.frame(
    effect = "fixed", group = NA_character_, term = rownames(numbers), estimate = numbers[, 1],
    std.error = numbers[, 2], statistic = numbers[, 3], df = stats::df.residual(fit),
    p.value = numbers[, 4]
  )
}

# Quantile residuals (Dunn and Smyth 1996): the probability the fitted model, given its random
# effects, has of a value below the observed one, as a standard normal quantile. Normal and
# independent of the fitted values where the model holds, whatever its family.
quantile_residuals <- function(fit) {
  y <- as.numeric(stats::model.response(stats::model.frame(fit)))
  mean <- as.numeric(stats::fitted(fit))
  spread <- stats::sigma(fit)
  family <- stats::family(fit)$family
  tail <- function(lower) {
    if (family == "beta") {
      stats::pbeta(y, mean * spread, (1 - mean) * spread, lower.tail = lower, log.p = TRUE)
    } else if (family == "Gamma") {
      stats::pgamma(
        y, shape = 1 / spread^2, rate = 1 / (mean * spread^2), lower.tail = lower, log.p = TRUE
      )
    } else {
      stats::pnorm(y, mean, spread, lower.tail = lower, log.p = TRUE)
    }
  }
  # the smaller tail keeps its digits
  lower <- stats::qnorm(tail(TRUE), log.p = TRUE)
  upper <- stats::qnorm(tail(FALSE), lower.tail = FALSE, log.p = TRUE)
  data.frame(fitted = mean, residual = ifelse(lower < 0, lower, upper))
}

# What each level of each grouping factor adds: group ("lemma", "lemma: pair_typewithin"), value.
random_effects <- function(fit) {
  if (inherits(fit, "lm")) return(NULL)
  effects <- if (inherits(fit, "merMod")) lme4::ranef(fit) else glmmTMB::ranef(fit)$cond
  tables <- lapply(names(effects), function(group) {
    columns <- as.data.frame(effects[[group]])
    names <- ifelse(names(columns) == "(Intercept)", group, paste0(group, ": ", names(columns)))
    data.frame(group = rep(names, each = nrow(columns)), value = unlist(columns))
  })
  do.call(rbind, tables)
}
